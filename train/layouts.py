"""How the arrays of a program lie on devices, and how its functions are compiled for that.

:mod:`train.parallel` has the ways of doing it on many devices; one device is here. The devices may
be those of several processes (:mod:`train.distributed`). Each process then reads the rows that lie
on its own devices, and arrays are put together of what every process has there.
"""

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding

from train.arrays import on_host, place_on
from train.errors import UserError
from train.sync import Sync

Mode = Literal["jit", "pmap", "shard_map", "mesh"]
Batch = dict[str, Any]
Axes = tuple[str, ...]  # logical names of an array's last axes, from the layer that owns it
Run = Callable[..., Any]  # (leaves, batch) -> ...


class Variable(NamedTuple):
    """What an array of the state is."""

    path: str  # in the state
    axes: Axes = ()
    parts: int | None = None  # side by side along the last axis, each to be cut by itself


DATA: str = "data"  # the axis of devices that the rows of a batch lie on


class Layout(abc.ABC):
    """How the arrays of a program lie on devices, and how its functions are compiled."""

    mode: Mode
    sync = Sync()  # what a step is given
    num_devices = 1
    num_shards = 1  # parts that the rows of a batch are cut into

    @abc.abstractmethod
    def place(self, leaves: Sequence[jax.Array], variables: Sequence[Variable]) -> list[jax.Array]:
        """Arrays as :meth:`train` takes them, from arrays as one device has them."""

    def plain(self, placed: Sequence[jax.Array], variables: Sequence[Variable]) -> list[jax.Array]:
        """The other way; where the arrays lie may stay as it is."""
        return list(placed)

    def seen(self, objects: Any) -> Any:
        """NNX objects as a compiled step has them."""
        return objects

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


class SharedRows(Layout):
    """The rows of a batch are cut into shares, and each device has one of them."""

    mesh: Mesh
    rows: NamedSharding  # of an array that is cut into shares along its first axis

    def share(self, rows: NamedSharding) -> None:
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

        def part(index: Any) -> np.ndarray:
            place = np.searchsorted(self.shares_here, (index[0].start or 0) // size)
            return x[place * size : (place + 1) * size]

        shape = (size * self.num_shards, *x.shape[1:])
        return jax.make_array_from_callback(shape, self.rows, part)

    def outputs(self, outputs):
        return jax.tree.map(on_host, outputs)


def variables(state: Any) -> list[Variable]:
    """One for each array of an NNX state, in the order of its leaves."""
    return [  # what an optimiser masks has a path and no array
        variable_of("/".join(map(str, path)), variable)
        for path, variable in nnx.to_flat_state(state)
        for _ in jax.tree.leaves(variable)
    ]


def variable_of(path: str, variable: nnx.Variable) -> Variable:
    """What an NNX variable at a path is."""
    metadata = variable.get_metadata()
    return Variable(path, metadata.get("axes", ()), metadata.get("parts"))


def grid(sizes: Mapping[str, int], devices: Sequence[Any]) -> Mesh:
    """Devices along named axes.

    Raises:
      UserError: the links of the hardware go another way.
    """
    try:
        return jax.make_mesh(
            tuple(sizes.values()),
            tuple(sizes),
            axis_types=(AxisType.Auto,) * len(sizes),
            devices=devices,
        )
    except NotImplementedError as error:  # TPUs, whose slices have sides
        asked = ",".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UserError(
            f"--mesh {asked} cannot be laid over this slice: make every axis the product of some "
            "of its sides"
        ) from error
