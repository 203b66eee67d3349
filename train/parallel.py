"""Four ways to run one training step, from one device to many.

    jit        one device
    pmap       every device runs the step on its rows of the batch, and they average; in maintenance
               mode upstream, and kept because much code is written so
    shard_map  the same in today's form: the collectives stand in the step, called through `Sync`
    mesh       one program for the whole batch, which the compiler cuts up: the rows over the axes
               `data` and `fsdp`, and parameters over `fsdp` and `tensor` by the names of their axes

The state of a run is the same in all four, and so are its losses, up to the order of sums: a run
that was saved under one goes on under another. Only dropout differs under `pmap` and `shard_map`,
where every device draws for its own rows.

The devices may be those of several processes (:mod:`train.distributed`). Each process then reads
the rows that lie on its own devices, and arrays are put together of what every process has there.
"""

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.arrays import is_key, on_host, on_words, place_on
from train.errors import UserError
from train.options import nearest
from train.sync import Sync

Mode = Literal["jit", "pmap", "shard_map", "mesh"]
Batch = dict[str, Any]
Axes = tuple[str, ...]  # logical names of an array's last axes, from the layer that owns it
Variable = tuple[str, Axes]  # an array's path in the state, and its axes
Run = Callable[..., Any]  # (leaves, batch) -> ...

DATA: str = "data"
MESH_AXES: tuple[str, ...] = (DATA, "fsdp", "tensor")

# Logical axis -> mesh axis. What is not named here, or has no name, is whole on every device.
LOGICAL_AXES = {
    "embed": "fsdp",  # the width of a Transformer
    "heads": "tensor",  # queries, keys and values of all heads
    "mlp": "tensor",  # inside a feed-forward network
    "in": "fsdp",
    "out": "tensor",
    "vocab": "tensor",
    "experts": "tensor",
}
# Their sizes are also decided by data, such as a number of classes: whole where they do not divide.
FLEXIBLE = ("in", "out", "vocab")


class Layout(abc.ABC):
    """How the arrays of a program lie on devices, and how its functions are compiled."""

    mode: Mode
    sync = Sync()  # what a step is given
    num_devices = 1
    num_shards = 1  # parts that the rows of a batch are cut into

    @abc.abstractmethod
    def place(self, leaves: Sequence[jax.Array], variables: Sequence[Variable]) -> list[jax.Array]:
        """Arrays as :meth:`train` takes them, from arrays as one device has them."""

    def plain(self, placed: Sequence[jax.Array]) -> list[jax.Array]:
        """The other way; where the arrays lie may stay as it is."""
        return list(placed)

    def positions(self, batch_size: int, pieces: int = 1) -> np.ndarray:
        """Which rows of a batch lie on this process's devices, in rising order."""
        del pieces
        return np.arange(batch_size)

    @abc.abstractmethod
    def put(self, batch: Batch, pieces: int = 1) -> Batch:
        """A batch as :meth:`train` takes it, from the rows at :meth:`positions` of it.

        Args:
          batch: columns of rows.
          pieces: into how many a step cuts it.
        """

    @abc.abstractmethod
    def train(self, run: Run, placed: Sequence[jax.Array]) -> Any:
        """``(leaves, batch) -> (new leaves, metrics)`` to be lowered; the leaves are given up."""

    @abc.abstractmethod
    def evaluate(self, run: Run) -> Any:
        """``(leaves, batch) -> outputs``, a row an example, to be lowered."""

    def outputs(self, outputs: Any) -> Any:
        """What :meth:`evaluate` gave, all rows in order on the first axis, on every process."""
        return outputs

    def whole(self, num_rows: int) -> int:
        """The least number of rows, at least so many, that every device has the same share of."""
        return math.ceil(num_rows / self.num_shards) * self.num_shards

    def describe(self) -> dict[str, int]:
        """Mesh axis -> devices along it."""
        return {}


class OneDevice(Layout):
    """`jit`, on the default device."""

    mode = "jit"

    def place(self, leaves, variables):
        return list(leaves)

    def put(self, batch, pieces=1):
        return batch

    def train(self, run, placed):
        return jax.jit(run, donate_argnums=0)

    def evaluate(self, run):
        return jax.jit(run)


class _SharedRows(Layout):
    """The rows of a batch are cut into shares, and each device has one of them."""

    mesh: Mesh
    rows: NamedSharding  # of an array that is cut into shares along its first axis

    def _share(self, rows: NamedSharding) -> None:
        """Finds which shares lie on devices of this process."""
        self.rows = rows
        spans = rows.addressable_devices_indices_map((self.num_shards,)).values()
        self.shares_here = np.unique([span[0].start or 0 for span in spans if span])

    def positions(self, batch_size, pieces=1):
        cut = np.arange(batch_size).reshape(pieces, self.num_shards, -1)
        return cut[:, self.shares_here].reshape(-1)

    def by_share(self, x: np.ndarray, pieces: int) -> np.ndarray:
        """This process's rows so that those of each share, a part of every piece, are together."""
        if pieces == 1:
            return x
        cut = x.reshape(pieces, len(self.shares_here), -1, *x.shape[1:])
        return cut.swapaxes(0, 1).reshape(x.shape)

    def spread(self, x: np.ndarray) -> jax.Array:
        """An array on the devices of all processes, of this process's shares of it."""
        if len(self.shares_here) == self.num_shards:
            return place_on(x, self.rows)
        size = len(x) // len(self.shares_here)

        def share(index: Any) -> np.ndarray:
            place = np.searchsorted(self.shares_here, (index[0].start or 0) // size)
            return x[place * size : (place + 1) * size]

        shape = (size * self.num_shards, *x.shape[1:])
        return jax.make_array_from_callback(shape, self.rows, share)

    def outputs(self, outputs):
        return jax.tree.map(on_host, outputs)


class _EachItsRows(_SharedRows):
    """Every device has all of the state and some rows of the batch."""

    sync = Sync(DATA)

    def __init__(self, devices: Sequence[Any]):
        self.num_devices = self.num_shards = len(devices)
        self.mesh = _mesh({DATA: len(devices)}, devices)
        self._share(NamedSharding(self.mesh, PartitionSpec(DATA)))
        self.everywhere = NamedSharding(self.mesh, PartitionSpec())

    def describe(self):
        return {DATA: self.num_shards}


class Pmap(_EachItsRows):
    """`jax.pmap`: arrays have one more axis, the devices'."""

    mode = "pmap"

    def place(self, leaves, variables):
        def on_all(leaf: jax.Array) -> jax.Array:
            leaf = leaf.addressable_shards[0].data  # all of it lies on every device
            copies = [jax.device_put(leaf[None], device) for device in self.mesh.local_devices]
            shape = (self.num_shards, *leaf.shape)
            return jax.make_array_from_single_device_arrays(shape, self.rows, copies)

        return [on_all(leaf) for leaf in leaves]

    def plain(self, placed):
        if jax.process_count() == 1:
            return [leaf.addressable_shards[0].data[0] for leaf in placed]

        def of_all(leaf: jax.Array) -> jax.Array:
            copies = [shard.data[0] for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape[1:], self.everywhere, copies)

        return [of_all(leaf) for leaf in placed]

    def put(self, batch, pieces=1):
        return {
            name: self.spread(
                self.by_share(x, pieces).reshape(len(self.shares_here), -1, *x.shape[1:])
            )
            for name, x in batch.items()
        }

    def train(self, run, placed):
        return _Pmapped(jax.pmap(run, axis_name=DATA, out_axes=(0, None), donate_argnums=0))

    def evaluate(self, run):
        return _Pmapped(jax.pmap(run, axis_name=DATA))

    def outputs(self, outputs):
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), super().outputs(outputs))


@dataclass(frozen=True)
class _Pmapped:
    """A function of `jax.pmap` that is lowered for the devices of all processes.

    `pmap` asks for the arrays of this process's devices; what it compiles takes those of all.
    """

    mapped: Any

    def lower(self, *arguments: Any) -> Any:
        if jax.process_count() > 1:
            arguments = jax.tree.map(self._here, arguments)
        return self.mapped.lower(*arguments)

    def _here(self, x: jax.Array) -> Any:
        if is_key(x):
            return on_words(self._here, x)
        return np.zeros((jax.local_device_count(), *x.shape[1:]), x.dtype)


class ShardMap(_EachItsRows):
    """`jax.shard_map` inside `jax.jit`."""

    mode = "shard_map"

    def place(self, leaves, variables):
        return [place_on(leaf, self.everywhere) for leaf in leaves]

    def put(self, batch, pieces=1):
        return {name: self.spread(self.by_share(x, pieces)) for name, x in batch.items()}

    def train(self, run, placed):
        return jax.jit(self._map(run, PartitionSpec()), donate_argnums=0)

    def evaluate(self, run):
        return jax.jit(self._map(run, PartitionSpec(DATA)))

    def _map(self, run: Run, out: PartitionSpec) -> Run:
        # Without check_vma a gradient is that of a device's own rows, as under pmap, and is
        # averaged by `sync` alone; with it JAX would already have summed what `sync` averages.
        return jax.shard_map(
            run,
            mesh=self.mesh,
            in_specs=(PartitionSpec(), PartitionSpec(DATA)),
            out_specs=out,
            check_vma=False,
        )


class MeshLayout(_SharedRows):
    """`jax.jit` over named shardings."""

    mode = "mesh"

    def __init__(self, sizes: Mapping[str, int], devices: Sequence[Any]):
        self.mesh = _mesh(sizes, devices)
        self.num_devices = len(devices)
        self.num_shards = sizes[DATA] * sizes["fsdp"]
        # In this order: with `data` before `fsdp`, XLA's partitioner permutes the rows of gradients
        # for a product with a parameter that lies on `fsdp` and `tensor`, and never back.
        self._share(NamedSharding(self.mesh, PartitionSpec(("fsdp", DATA))))

    def describe(self):
        return dict(self.mesh.shape)

    def place(self, leaves, variables):
        return [
            place_on(leaf, NamedSharding(self.mesh, self.spec(path, leaf.shape, axes)))
            for leaf, (path, axes) in zip(leaves, variables, strict=True)
        ]

    def spec(self, path: str, shape: tuple[int, ...], axes: Axes) -> PartitionSpec:
        """Which mesh axis each axis of a parameter lies on.

        Raises:
          UserError: a mesh axis does not divide the axis that it should cut.
        """
        found: list[str | None] = [None] * (len(shape) - len(axes))  # the axis of stacked layers
        for name, size in zip(axes, shape[len(found) :], strict=True):
            axis = LOGICAL_AXES.get(name)
            count = 1 if axis is None else self.mesh.shape[axis]
            if count == 1 or axis in found or (size % count and name in FLEXIBLE):
                axis = None
            elif size % count:
                fits = [str(n) for n in range(1, self.mesh.size + 1) if size % n == 0]
                raise UserError(
                    f"--mesh {axis}={count} does not divide the {size} of axis {name!r} of {path}, "
                    f"whose shape is {shape}; {axis} can be {', '.join(fits)}"
                )
            found.append(axis)
        return PartitionSpec(*found)

    def positions(self, batch_size, pieces=1):
        return super().positions(batch_size)  # the compiler cuts the pieces

    def put(self, batch, pieces=1):
        return {name: self.spread(x) for name, x in batch.items()}

    def train(self, run, placed):
        # As they came, so that the new arrays can lie where the old ones lay.
        shardings = [leaf.sharding for leaf in placed]
        return jax.jit(run, donate_argnums=0, out_shardings=(shardings, self._everywhere))

    def evaluate(self, run):
        return jax.jit(run, out_shardings=self.rows)

    @property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())


def layout(mode: Mode, mesh: str | None = None, devices: Sequence[Any] | None = None) -> Layout:
    """The layout that `--parallel MODE --mesh MESH` asks for.

    Args:
      mode: one of the four.
      mesh: devices along each axis, as ``data=2,fsdp=2,tensor=2``; only for ``mesh``, where all
        devices lie along ``data`` by default.
      devices: those to use; all that JAX has by default.

    Raises:
      UserError: no such axis, or the sizes do not multiply to the devices.
    """
    if mode != "mesh" and mesh is not None:
        raise UserError(f"--mesh {mesh}: --parallel {mode} has no mesh; use --parallel mesh")
    if mode == "jit":
        return OneDevice()
    devices = jax.devices() if devices is None else devices
    if mode != "mesh":
        return {"pmap": Pmap, "shard_map": ShardMap}[mode](devices)
    return MeshLayout(mesh_sizes(mesh, len(devices)), devices)


def mesh_sizes(text: str | None, num_devices: int) -> dict[str, int]:
    """``data=4,tensor=2`` as the size of every mesh axis; what is not named has 1.

    Raises:
      UserError: not of this form, no such axis, or another number of devices.
    """
    if text is None:
        return {**dict.fromkeys(MESH_AXES, 1), DATA: num_devices}
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if name not in sizes:
            raise UserError(nearest("mesh axis", name, MESH_AXES))
        if not equals or not number.isdecimal() or int(number) < 1:
            raise UserError(f"--mesh {text}: {part!r} has not the form {name}=2")
        sizes[name] = int(number)
    if (product := math.prod(sizes.values())) != num_devices:
        raise UserError(
            f"--mesh {text} is of {product} devices, and here are {num_devices}; "
            f"{DATA}={num_devices} would fit"
        )
    return sizes


def check_batch(layout: Layout, batch_size: int, pieces: int) -> None:
    """Raises UserError unless every device gets the same share of every piece of a batch."""
    if batch_size % (layout.num_shards * pieces):
        each = "" if pieces == 1 else f", each with its part of the {pieces} pieces of a step"
        raise UserError(
            f"batch_size={batch_size} cannot be shared by {layout.num_shards} devices{each}; "
            f"make it a multiple of {layout.num_shards * pieces}"
        )


def _mesh(sizes: Mapping[str, int], devices: Sequence[Any]) -> Mesh:
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )
