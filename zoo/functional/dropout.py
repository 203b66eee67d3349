"""Dropout (Srivastava et al. 2014, "Dropout: a simple way to prevent ... overfitting")."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def dropout(x: Float[Array, "*S"], key: Key[Array, ""], rate: float) -> Float[Array, "*S"]:
    """`y = m x / (1 - rate)` with `m ~ Bernoulli(1 - rate)`, so that `E[y] = x`.

    Differs from the paper: what is kept is scaled up here, in training, instead of the weights
    being scaled down at test time ("inverted" dropout). `rate` lies in [0, 1).
    """
    keep = 1.0 - rate
    mask = jax.random.bernoulli(key, keep, x.shape)
    return jnp.where(mask, x / keep, 0)
