"""Initialisers, by the formula of the paper that proposed each.

Every one is called `init(key, shape, dtype)`; those with a parameter take it by keyword, and
`functools.partial(normal, stddev=0.02)` fixes it. The shape of a kernel is `[*window, in, out]`, so
`fan_in = window · in` inputs feed one output, and one input feeds `fan_out = window · out` outputs.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Key

Shape: TypeAlias = tuple[int, ...]
Initializer: TypeAlias = Callable[[Key[Array, ""], Shape, DTypeLike], Array]


def zeros(key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """All 0."""
    return jnp.zeros(shape, dtype)


def ones(key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """All 1."""
    return jnp.ones(shape, dtype)


def normal(
    key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32, *, stddev: float = 1.0
) -> Array:
    """N(0, stddev²)."""
    return stddev * jax.random.normal(key, shape, dtype)


def uniform(
    key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32, *, limit: float = 1.0
) -> Array:
    """U(-limit, limit)."""
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def truncated_normal(
    key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32, *, stddev: float = 0.02
) -> Array:
    """N(0, stddev²) with everything beyond two stddev drawn again.

    As in BERT and ViT, `stddev` is the normal's before the cut; after it, 0.88 of that is left.
    """
    return stddev * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def lecun_normal(key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """N(0, 1 / fan_in): keeps the variance of a linear unit (LeCun et al. 1998, eq. 16)."""
    return normal(key, shape, dtype, stddev=math.sqrt(1 / fans(shape)[0]))


def lecun_uniform(key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """U(±√(3 / fan_in)): the same variance, 1 / fan_in."""
    return uniform(key, shape, dtype, limit=math.sqrt(3 / fans(shape)[0]))


def glorot_normal(key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """N(0, 2 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 12)."""
    return normal(key, shape, dtype, stddev=math.sqrt(2 / sum(fans(shape))))


def glorot_uniform(key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """U(±√(6 / (fan_in + fan_out))) (Glorot & Bengio 2010, eq. 16)."""
    return uniform(key, shape, dtype, limit=math.sqrt(6 / sum(fans(shape))))


def he_normal(key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """N(0, 2 / fan_in): twice LeCun's, as relu halves the mean square (He et al. 2015, eq. 10)."""
    return normal(key, shape, dtype, stddev=math.sqrt(2 / fans(shape)[0]))


def he_uniform(key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32) -> Array:
    """U(±√(6 / fan_in)): the same variance, 2 / fan_in."""
    return uniform(key, shape, dtype, limit=math.sqrt(6 / fans(shape)[0]))


def orthogonal(
    key: Key[Array, ""], shape: Shape, dtype: DTypeLike = jnp.float32, *, gain: float = 1.0
) -> Array:
    """A random matrix [window · in, out] with orthonormal columns (or rows) (Saxe et al. 2014)."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    gaussian = jax.random.normal(key, (max(rows, columns), min(rows, columns)))
    q, r = jnp.linalg.qr(gaussian)
    q = q * jnp.sign(jnp.diagonal(r))  # without it Q is not uniformly distributed (Mezzadri 2007)
    return (gain * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a kernel of shape [*window, in, out]."""
    if len(shape) < 2:
        raise ValueError(
            f"{shape=} is not a kernel [*window, in, out]; it has no fan-in or fan-out"
        )
    *window, in_dim, out_dim = shape
    return math.prod(window) * in_dim, math.prod(window) * out_dim
