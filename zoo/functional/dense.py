"""The dense (fully connected, affine) map."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def dense(
    x: Float[Array, "... in_dim"],
    kernel: Float[Array, "in_dim *out"],
    bias: Float[Array, "*out"] | None = None,
) -> Float[Array, "..."]:
    """`y = x W + b` over the last axis of x and the first of W; the others of W are those of y."""
    y = jnp.tensordot(x, kernel, 1)
    return y if bias is None else y + bias
