"""Layer norm for XLA's CPU backend: every sum over rows or columns is a product with ones.

XLA adds up a row in a loop over single numbers, a matrix product in vectors. In the gradient, with
`x̂ = (x - μ)/√(σ² + ε)` and `ĝ = g · scale` (Ba et al. 2016, differentiated),

    ∂L/∂x = (ĝ - mean(ĝ) - x̂ · mean(ĝ · x̂)) / √(σ² + ε)

what is kept from the way forward is `x̂` alone, not `x`, `x - μ` and its square.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Rows = Float[Array, "N D"]
Vector = Float[Array, " D"]


def layer_norm(
    x: Float[Array, "... D"],
    scale: Vector | None = None,
    bias: Vector | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "... D"]:
    """`zoo.functional.norm.layer_norm` over a `[N, D]` view of x; it has no forward mode."""
    dim = x.shape[-1]
    scale = jnp.ones(dim) if scale is None else scale.astype(jnp.float32)
    bias = jnp.zeros(dim) if bias is None else bias.astype(jnp.float32)
    y = _layer_norm(x.astype(jnp.float32).reshape(-1, dim), scale, bias, epsilon)
    return y.reshape(x.shape).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x: Rows, scale: Vector, bias: Vector, epsilon: float) -> Rows:
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x: Rows, scale: Vector, bias: Vector, epsilon: float):
    centred = x - _mean(x)
    multiplier = lax.rsqrt(_mean(jnp.square(centred)) + epsilon)
    standardized = centred * multiplier
    return standardized * scale + bias, (standardized, multiplier, scale)


def _backward(epsilon: float, kept, g: Rows):
    del epsilon
    standardized, multiplier, scale = kept
    scaled = g * scale
    dx = scaled - _mean(scaled) - standardized * _mean(scaled * standardized)
    return dx * multiplier, _column_sums(g * standardized), _column_sums(g)


_layer_norm.defvjp(_forward, _backward)


def _mean(x: Rows) -> Float[Array, "N 1"]:
    return x @ jnp.full((x.shape[1], 1), 1 / x.shape[1], x.dtype)


def _column_sums(x: Rows) -> Vector:
    return (jnp.ones((1, x.shape[0]), x.dtype) @ x)[0]
