"""Max pooling for XLA's CPU backend: the gradient is a mask, not a select-and-scatter.

XLA gives the gradient to each window's winner by walking over all windows one element at a time.
Here the winner is found once as a boolean mask over the taps of the window and the derivative,

    ẏ[i] = Σ_u won[i, u] · ẋ[stride·i + u - pad],   won[i, u] = 1 for the first u where x = y[i],

is a multiplication by that mask, which JAX transposes. Windows that do not overlap are a reshape.
"""

from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels.window import Pads, Sizes, tap, taps
from zoo.functional import pooling as reference
from zoo.functional.window import Padding, Size, pad_pairs, per_axis


def max_pool(
    x: Float[Array, "B *I C"],
    window: Size = 2,
    *,
    strides: Size | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "B *J C"]:
    """`zoo.functional.pooling.max_pool`, ties and their gradients included."""
    num_axes = x.ndim - 2
    sizes = per_axis(window, num_axes, "window")
    steps = sizes if strides is None else per_axis(strides, num_axes, "strides")
    return _max_pool(x, sizes, steps, tuple(pad_pairs(padding, x.shape[1:-1], sizes, steps)))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, window: Sizes, strides: Sizes, pads: Pads) -> Array:
    return reference.max_pool(x, window, strides=strides, padding=pads)


@_max_pool.defjvp
def _max_pool_jvp(window: Sizes, strides: Sizes, pads: Pads, primals, tangents):
    (x,), (dx,) = primals, tangents
    y = _max_pool(x, window, strides, pads)
    rows = y.shape[1:-1]
    padded = jnp.pad(x, [(0, 0), *pads, (0, 0)], constant_values=-jnp.inf)
    won = _winners([tap(padded, u, rows, strides) for u in taps(window)], y)
    if window == strides and not any(map(any, pads)):
        return y, _sum_of_winners(dx, won, window, rows)
    dx = jnp.pad(dx, [(0, 0), *pads, (0, 0)])
    moved = [tap(dx, u, rows, strides) for u in taps(window)]
    return y, reduce(add, [jnp.where(mask, t, 0) for mask, t in zip(won, moved, strict=True)])


def _winners(values: list[Array], y: Array) -> list[Array]:
    """One mask a tap: is it the first of its window that equals the maximum?"""
    won, found = [], jnp.zeros(y.shape, bool)
    for value in values:
        hit = value == y
        won.append(hit & ~found)
        found = found | hit
    return won


def _sum_of_winners(dx: Array, won: list[Array], window: Sizes, rows: Sizes) -> Array:
    """Σ_u won · ẋ where windows tile the image: both as `[B, J, window, ..., C]`, one multiply."""
    batch, *_, channels = dx.shape
    pairs = list(zip(rows, window, strict=True))
    dx = lax.slice(dx, (0,) * dx.ndim, (batch, *(n * k for n, k in pairs), channels))
    tiles = dx.reshape(batch, *(size for pair in pairs for size in pair), channels)
    mask = jnp.stack(won).reshape(*window, *won[0].shape)  # [window..., B, J..., C]
    num = len(window)
    order = [num, *(axis for i in range(num) for axis in (num + 1 + i, i)), 2 * num + 1]
    return jnp.sum(jnp.where(mask.transpose(order), tiles, 0), axis=tuple(range(2, 2 * num + 1, 2)))
