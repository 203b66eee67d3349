"""Repeated blocks, in one place: a readable loop, or one scan over stacked parameters."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Activations = Float[Array, "B T D"]
# What goes from block to block: activations, or these and a loss that each block adds to.
X = TypeVar("X", Activations, tuple[Activations, Float[Array, ""]])


class Stack(nnx.Module):
    """`x ← block_l(x)` for l = 1 .. L.

    With `scan`, the parameters of all blocks are stacked along a first axis and one block is
    compiled, so that compile time does not grow with depth; without it, each block is a module of
    its own. With `remat`, a block's activations are computed again in the backward pass and not
    kept (Chen et al. 2016). Values and gradients are the same in all four cases, dropout included.
    """

    def __init__(
        self,
        make_block: Callable[[], nnx.Module],
        num_layers: int,
        *,
        scan: bool = False,
        remat: bool = False,
    ):
        blocks = [make_block() for _ in range(num_layers)]
        self.num_layers, self.scan, self.remat = num_layers, scan, remat
        if scan:
            graphdef, *_ = nnx.split(blocks[0])
            states = [nnx.state(block) for block in blocks]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            self.blocks: Any = nnx.merge(graphdef, stacked)
        else:
            self.blocks = nnx.List(blocks)

    def __call__(self, x: X, *args: Any, rngs: nnx.Rngs | None = None) -> X:
        """Each block is called as `block(x, *args, rngs=rngs)`, with a dropout key of its own."""
        keys = None if rngs is None else jax.random.split(rngs.dropout(), self.num_layers)
        if not self.scan:
            for index, block in enumerate(self.blocks):
                layer = self._layer(block, args)
                x = layer(nnx.state(block), x, None if keys is None else keys[index])
            return x
        layer = self._layer(self.blocks, args)
        layers = nnx.state(self.blocks), keys
        return jax.lax.scan(lambda x, layer_: (layer(layer_[0], x, layer_[1]), None), x, layers)[0]

    def _layer(self, block: Any, args: tuple[Any, ...]) -> Callable[..., Any]:
        """One block as a function of its parameters, its input and its key."""
        if not (self.scan or self.remat):
            return lambda state, x, key: block(x, *args, rngs=_rngs(key))
        graphdef, *_ = nnx.split(block)

        def layer(state, x, key):
            return nnx.merge(graphdef, state)(x, *args, rngs=_rngs(key))

        return jax.checkpoint(layer) if self.remat else layer

    def step(self, x: Activations, caches: Any, *args: Any) -> tuple[Activations, Any]:
        """Each block is called as `block.step(x, cache, *args)`, with a cache of its own."""
        if not self.scan:
            after = []
            for block, cache in zip(self.blocks, caches, strict=True):
                x, cache = block.step(x, cache, *args)
                after.append(cache)
            return x, tuple(after)
        graphdef, state = nnx.split(self.blocks)

        def layer(x, state_and_cache):
            state, cache = state_and_cache
            return nnx.merge(graphdef, state).step(x, cache, *args)

        return jax.lax.scan(layer, x, (state, caches))

    def each(self, function: Callable[[Any], Any]) -> Any:
        """`function(block)` of every block, kept as caches are."""
        if not self.scan:
            return tuple(function(block) for block in self.blocks)
        graphdef, state = nnx.split(self.blocks)
        return jax.lax.map(lambda state: function(nnx.merge(graphdef, state)), state)

    def caches(self, empty: Any) -> Any:
        """A copy of an empty cache for each block, as `step` takes them."""
        if not self.scan:
            return (empty,) * self.num_layers
        return jax.tree.map(lambda c: jnp.broadcast_to(c, (self.num_layers, *c.shape)), empty)

    def first(self, caches: Any) -> Any:
        """The first block's cache."""
        return jax.tree.map(lambda c: c[0], caches) if self.scan else caches[0]


def _rngs(key: Any) -> nnx.Rngs | None:
    return None if key is None else nnx.Rngs(dropout=key)
