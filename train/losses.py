"""Losses over a batch, as their papers print them, computed stably."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_squared_error(
    predicted: Float[Array, " B"], target: Float[Array, " B"]
) -> Float[Array, ""]:
    """``1/B Σ (ŷ - y)²``, in float32."""
    return jnp.mean(jnp.square(predicted.astype(jnp.float32) - target))
