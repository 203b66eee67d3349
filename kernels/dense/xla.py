"""Dense for XLA's CPU backend: leading axes flattened, so that it is one matrix product."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def dense(
    x: Float[Array, "... in_dim"],
    kernel: Float[Array, "in_dim *out"],
    bias: Float[Array, "*out"] | None = None,
) -> Float[Array, "..."]:
    """`zoo.functional.dense.dense` over a `[rows, in_dim]` view of x."""
    y = jnp.tensordot(x.reshape(-1, x.shape[-1]), kernel, 1)
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], *kernel.shape[1:])
