"""Normalisation: batch, layer, group and root-mean-square.

All share one form, `y = scale · (x - μ) / √(σ² + ε) + bias`, and differ in the axes that μ and σ²
are taken over. The arithmetic is float32 whatever the input's dtype, because bfloat16 keeps too few
digits of a variance; the result has the input's dtype.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

PerChannel = Float[Array, " C"]


def batch_norm(
    x: Float[Array, "*B C"],
    mean: PerChannel,
    var: PerChannel,
    scale: PerChannel | None = None,
    bias: PerChannel | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "*B C"]:
    """Each channel with the moments given, of this batch or running (Ioffe & Szegedy 2015)."""
    multiplier = lax.rsqrt(var.astype(jnp.float32) + epsilon)
    y = (x.astype(jnp.float32) - mean) * multiplier
    return _affine(y, scale, bias).astype(x.dtype)


def batch_moments(x: Float[Array, "*B C"]) -> tuple[PerChannel, PerChannel]:
    """Mean and mean of squares of each channel, over every other axis, in float32.

    These two, unlike the variance, average exactly over the equal shards of a batch.
    """
    x = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    return jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None = None,
    bias: Float[Array, " D"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "... D"]:
    """μ and σ² over the last axis, for each position by itself (Ba et al. 2016)."""
    y = _standardized(x.astype(jnp.float32), -1, epsilon)
    return _affine(y, scale, bias).astype(x.dtype)


def group_norm(
    x: Float[Array, "B *I C"],
    scale: PerChannel | None = None,
    bias: PerChannel | None = None,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
) -> Float[Array, "B *I C"]:
    """μ and σ² over all positions and the channels of one group, by example (Wu & He 2018)."""
    batch, *_, channels = x.shape
    if channels % num_groups:
        raise ValueError(f"{num_groups=} must divide the {channels} channels")
    grouped = x.astype(jnp.float32).reshape(batch, -1, num_groups, channels // num_groups)
    y = _standardized(grouped, (1, 3), epsilon).reshape(x.shape)
    return _affine(y, scale, bias).astype(x.dtype)


def rms_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None = None,
    *,
    epsilon: float = 1e-6,
) -> Float[Array, "... D"]:
    """`y = scale · x / √(mean(x²) + ε)`: layer norm without μ (Zhang & Sennrich 2019)."""
    wide = x.astype(jnp.float32)
    y = wide * lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + epsilon)
    return _affine(y, scale, None).astype(x.dtype)


def _standardized(x: Array, axes: int | tuple[int, ...], epsilon: float) -> Array:
    centred = x - jnp.mean(x, axes, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(jnp.square(centred), axes, keepdims=True) + epsilon)


def _affine(y: Array, scale: Array | None, bias: Array | None) -> Array:
    if scale is not None:
        y = y * scale
    return y if bias is None else y + bias
