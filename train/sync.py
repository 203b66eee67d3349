"""What a step sees of the batch when several devices share its rows.

Under `jit` and `mesh` one program sees all rows, and nothing needs to be done. Under `pmap` and
`shard_map` the program of each device sees its own rows, and asks the others through a `Sync`: for
the mean of what all have, for the rows of all, and for its rows of what is drawn for all, so that
the numbers are those of one device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax


@dataclass(frozen=True)
class Sync:
    """``sync(tree)`` is the mean over all devices of each array of a tree.

    A step that cuts its batch in pieces, one after the other, finds in each piece the rows of one
    device's piece; methods with ``pieces`` are told how many lie in the rows that they are given.
    """

    axis: str | None = None  # of the devices; None where the program sees the whole batch

    def __call__(self, tree: Any) -> Any:
        return tree if self.axis is None else lax.pmean(tree, self.axis)

    @property
    def num_devices(self) -> int:
        """How many share the batch."""
        return 1 if self.axis is None else lax.axis_size(self.axis)

    def own(self, key: jax.Array) -> jax.Array:
        """A random key that no other device has, for what need not be the same, as dropout."""
        return key if self.axis is None else jax.random.fold_in(key, lax.axis_index(self.axis))

    def draw(
        self,
        function: Callable[..., jax.Array],
        key: jax.Array,
        shape: tuple[int, ...],
        *args: Any,
        pieces: int = 1,
    ) -> jax.Array:
        """``function(key, shape, *args)``, drawn once for the rows of all devices."""
        if self.axis is None:
            return function(key, shape, *args)
        shape = (shape[0] * self.num_devices, *shape[1:])
        return self.rows(function(key, shape, *args), pieces=pieces)

    def whole(self, function: Callable[[Any], Any], rows: Any, *, pieces: int = 1) -> Any:
        """This device's rows of ``function(rows of all devices)``, which may mix or change them."""
        if self.axis is None:
            return function(rows)
        return self.rows(function(self.gather(rows, pieces=pieces)), pieces=pieces)

    def gather(self, tree: Any, *, pieces: int = 1) -> Any:
        """The rows of all devices, in the order in which one device would have them."""
        if self.axis is None:
            return tree

        def gathered(x: jax.Array) -> jax.Array:
            cut = x.reshape(pieces, -1, *x.shape[1:])
            whole = lax.all_gather(cut, self.axis, axis=1, tiled=True)
            return whole.reshape(-1, *x.shape[1:])

        return jax.tree.map(gathered, tree)

    def rows(self, tree: Any, *, pieces: int = 1) -> Any:
        """This device's rows of arrays with the rows of all."""
        if self.axis is None:
            return tree
        index, count = lax.axis_index(self.axis), self.num_devices

        def taken(x: jax.Array) -> jax.Array:
            cut = x.reshape(pieces, count, -1, *x.shape[1:])
            return lax.dynamic_index_in_dim(cut, index, axis=1, keepdims=False).reshape(
                -1, *x.shape[1:]
            )

        return jax.tree.map(taken, tree)
