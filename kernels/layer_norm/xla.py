"""Layer norm and rms norm for XLA's CPU backend: a backward pass of its own.

Differentiating the reference keeps whole arrays, such as x - μ, and goes over them once for each
term of the derivative. Here the forward pass keeps x itself and two numbers a row, μ and ρ (one in
rms_norm), from which x̂ is computed again wherever it is needed; `rows.py` has the equations.

Sums are matrix products with ones: XLA's own sum over a row adds one number after the other, and a
product takes several at once. Over 4,096 rows of 768 both passes take about half the reference's
time so, and a quarter of its memory. Barriers keep XLA from taking a row's sums once more for each
of its numbers.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels.layer_norm.rows import Form, Passes, input_gradient, normalized


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None = None,
    bias: Float[Array, " D"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "... D"]:
    """`zoo.functional.norm.layer_norm`; differentiable backwards, not by `jax.jvp`."""
    return normalized(x, scale, bias, Form(True, epsilon), PASSES)


def rms_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None = None,
    *,
    epsilon: float = 1e-6,
) -> Float[Array, "... D"]:
    """`zoo.functional.norm.rms_norm`; differentiable backwards, not by `jax.jvp`."""
    return normalized(x, scale, None, Form(False, epsilon), PASSES)


def _forward(x: Array, scale: Array | None, bias: Array | None, form: Form):
    wide = x.astype(jnp.float32)
    mean = _row_mean(wide) if form.centred else None
    centred = wide if mean is None else wide - mean
    rho = lax.rsqrt(_row_mean(centred * centred) + form.epsilon)
    y = centred * rho
    y = y if scale is None else y * scale
    y = y if bias is None else y + bias
    return y.astype(x.dtype), (mean, rho)


def _backward(dy: Array, x: Array, scale: Array | None, kept, form: Form):
    mean, rho = kept
    wide, dy = x.astype(jnp.float32), dy.astype(jnp.float32)
    x_hat = (wide if mean is None else wide - mean) * rho
    g = dy if scale is None else dy * scale
    dx = input_gradient(g, x_hat, rho, form, _row_mean)
    return dx.astype(x.dtype), _sum_of_rows(dy * x_hat), _sum_of_rows(dy)


def _row_mean(x: Array) -> Array:
    """`[rows, D] -> [rows, 1]`."""
    dim = x.shape[1]
    return lax.optimization_barrier(x @ jnp.ones((dim, 1), x.dtype)) / dim


def _sum_of_rows(x: Array) -> Array:
    """`[rows, D] -> [D]`."""
    return jnp.ones(len(x), x.dtype) @ x


PASSES = Passes(_forward, _backward)
