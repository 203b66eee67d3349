"""The dense (fully connected, affine) map."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def dense(
    x: Float[Array, "... in_dim"],
    kernel: Float[Array, "in_dim out_dim"],
    bias: Float[Array, " out_dim"] | None = None,
) -> Float[Array, "... out_dim"]:
    """`y = x W + b`, applied to the last axis."""
    y = jnp.matmul(x, kernel)
    return y if bias is None else y + bias
