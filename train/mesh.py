"""Named shardings: the names of a parameter's axes say how it is cut over a grid of devices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from train.arrays import place_on
from train.errors import UserError
from train.layouts import DATA, SharedRows, Variable, grid, variable_of
from train.options import nearest
from train.sharded import sharded

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


class MeshLayout(SharedRows):
    """`jax.jit` over named shardings."""

    mode = "mesh"

    def __init__(self, sizes: Mapping[str, int], devices: Sequence[Any]):
        self.mesh = grid(sizes, devices)
        self.num_devices = len(devices)
        self.num_shards = sizes[DATA] * sizes["fsdp"]
        # In this order: with `data` before `fsdp`, XLA's partitioner permutes the rows of gradients
        # for a product with a parameter that lies on `fsdp` and `tensor`, and never back.
        self.share(NamedSharding(self.mesh, PartitionSpec(("fsdp", DATA))))

    def describe(self):
        return dict(self.mesh.shape)

    def place(self, leaves, variables):
        return [
            place_on(
                leaf.reshape(by_parts(leaf.shape, variable.parts)), self.lies(variable, leaf.shape)
            )
            for leaf, variable in zip(leaves, variables, strict=True)
        ]

    def plain(self, placed, variables):
        return [
            leaf if variable.parts is None else leaf.reshape(*leaf.shape[:-2], -1)
            for leaf, variable in zip(placed, variables, strict=True)
        ]

    def seen(self, objects):
        return sharded(objects, lambda path, p: self.lies(variable_of(path, p), p.shape))

    def lies(self, variable: Variable, shape: tuple[int, ...]) -> NamedSharding:
        """Which mesh axis each axis of an array lies on; parts have an axis of their own.

        Raises:
          UserError: a mesh axis does not divide the axis that it should cut.
        """
        axes = variable.axes
        if variable.parts is not None:
            axes, shape = (*axes[:-1], "parts", axes[-1]), by_parts(shape, variable.parts)
        found: list[str | None] = [None] * (len(shape) - len(axes))  # the axis of stacked layers
        for name, size in zip(axes, shape[len(found) :], strict=True):
            axis = LOGICAL_AXES.get(name)
            if len(variable.axes) == 1 and axis == "fsdp":
                axis = None  # a vector: to gather it takes longer than its memory is worth
            count = 1 if axis is None else self.mesh.shape[axis]
            if count == 1 or axis in found or (size % count and name in FLEXIBLE):
                axis = None
            elif size % count:
                fits = [str(n) for n in range(1, self.mesh.size + 1) if size % n == 0]
                raise UserError(
                    f"--mesh {axis}={count} does not divide the {size} of axis {name!r} of "
                    f"{variable.path}, whose shape is {shape}; {axis} can be {', '.join(fits)}"
                )
            found.append(axis)
        return NamedSharding(self.mesh, PartitionSpec(*found))

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


def by_parts(shape: tuple[int, ...], parts: int | None) -> tuple[int, ...]:
    """A shape with an axis for the parts that stand side by side along the last one."""
    return shape if parts is None else (*shape[:-1], parts, shape[-1] // parts)
