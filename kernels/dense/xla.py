"""Dense for XLA's CPU backend: leading axes flattened, so that it is one matrix product."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def dense(
    x: Float[Array, "... in_dim"],
    kernel: Float[Array, "in_dim out_dim"],
    bias: Float[Array, " out_dim"] | None = None,
) -> Float[Array, "... out_dim"]:
    """`zoo.functional.dense.dense` over a `[rows, in_dim]` view of x."""
    y = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel)
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], kernel.shape[-1])
