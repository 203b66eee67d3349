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
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from train.arrays import is_key, on_words, place_on
from train.errors import UserError
from train.layouts import DATA, Layout, Mode, OneDevice, Run, SharedRows, grid
from train.mesh import MeshLayout, mesh_sizes
from train.sync import Sync


class _EachItsRows(SharedRows):
    """Every device has all of the state and some rows of the batch."""

    sync = Sync(DATA)

    def __init__(self, devices: Sequence[Any]):
        self.num_devices = self.num_shards = len(devices)
        self.mesh = grid({DATA: len(devices)}, devices)
        self.share(NamedSharding(self.mesh, PartitionSpec(DATA)))
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

    def plain(self, placed, variables):
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


def check_batch(layout: Layout, batch_size: int, pieces: int) -> None:
    """Raises UserError unless every device gets the same share of every piece of a batch."""
    if batch_size % (layout.num_shards * pieces):
        each = "" if pieces == 1 else f", each with its part of the {pieces} pieces of a step"
        raise UserError(
            f"batch_size={batch_size} cannot be shared by {layout.num_shards} devices{each}; "
            f"make it a multiple of {layout.num_shards * pieces}"
        )
