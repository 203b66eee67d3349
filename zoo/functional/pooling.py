"""Pooling: the largest or the mean value under a sliding window, channel by channel."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from zoo.functional.window import Padding, Size, check_fits, pad_pairs, per_axis


def max_pool(
    x: Float[Array, "B *I C"],
    window: Size = 2,
    *,
    strides: Size | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "B *J C"]:
    """`y[b, i, c] = max_u x[b, stride·i + u - pad, c]`; strides default to the window.

    Padding never wins. Where several values tie, the gradient goes to the first.
    """
    return _pool(x, -jnp.inf, lax.max, window, strides, padding)


def avg_pool(
    x: Float[Array, "B *I C"],
    window: Size = 2,
    *,
    strides: Size | None = None,
    padding: Padding = "VALID",
    count_padding: bool = True,
) -> Float[Array, "B *J C"]:
    """`y[b, i, c] = mean_u x[b, stride·i + u - pad, c]`; strides default to the window.

    Padding counts as zeros in the mean (PyTorch's default), unless `count_padding` is false. The
    sum is taken in float32, since bfloat16 would stop counting at 256.
    """
    total = _pool(x.astype(jnp.float32), 0.0, lax.add, window, strides, padding)
    if count_padding:
        count = jnp.prod(jnp.array(per_axis(window, x.ndim - 2, "window")))
    else:
        count = _pool(
            jnp.ones_like(x[:1, ..., :1], jnp.float32), 0.0, lax.add, window, strides, padding
        )
    return (total / count).astype(x.dtype)


def global_max_pool(x: Float[Array, "B *I C"]) -> Float[Array, "B C"]:
    """`y[b, c] = max_i x[b, i, c]` over all positions."""
    return jnp.max(x, axis=tuple(range(1, x.ndim - 1)))


def global_avg_pool(x: Float[Array, "B *I C"]) -> Float[Array, "B C"]:
    """`y[b, c] = mean_i x[b, i, c]` over all positions, summed in float32."""
    mean = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)), dtype=jnp.float32)
    return mean.astype(x.dtype)


def _pool(x, start, combine, window, strides, padding):
    num_axes = x.ndim - 2
    window = per_axis(window, num_axes, "window")
    strides = window if strides is None else per_axis(strides, num_axes, "strides")
    pads = pad_pairs(padding, x.shape[1:-1], window, strides)
    check_fits(x.shape[1:-1], window, pads)
    for k, (low, high) in zip(window, pads, strict=True):
        if max(low, high) >= k:
            raise ValueError(f"padding {low, high} makes windows of {k} rows without any input")
    return lax.reduce_window(
        x,
        start,
        combine,
        window_dimensions=(1, *window, 1),
        window_strides=(1, *strides, 1),
        padding=[(0, 0), *pads, (0, 0)],
    )
