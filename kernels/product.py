"""The matrix product of Pallas kernels."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def product(a: Array, b: Array, over: tuple[int, int]) -> Array:
    """The matrix product over one axis of each, summed in float32, exact in float32."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    contracted = ((over[:1], over[1:]), ((), ()))
    return lax.dot_general(
        a, b, contracted, precision=precision, preferred_element_type=jnp.float32
    )
