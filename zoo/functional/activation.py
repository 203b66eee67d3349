"""Activation functions, element by element, and softmax.

Where libraries disagree about a function, each variant has its own name.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

X = Float[Array, "*S"]


def relu(x: X) -> X:
    """`max(x, 0)`, with gradient 0 at 0 (`jnp.maximum` would give one half there)."""
    return jnp.where(x > 0, x, 0)


def leaky_relu(x: X, slope: float = 0.01) -> X:
    """`x` where positive, else `slope · x` (Maas et al. 2013)."""
    return jnp.where(x > 0, x, slope * x)


def elu(x: X, alpha: float = 1.0) -> X:
    """`x` where positive, else `alpha · (eˣ - 1)` (Clevert et al. 2016)."""
    # The exponential never sees a large x, whose overflow would turn the gradient into NaN.
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))


def sigmoid(x: X) -> X:
    """`σ(x) = 1 / (1 + e⁻ˣ)`."""
    return lax.logistic(x)


def tanh(x: X) -> X:
    """`(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)`."""
    return jnp.tanh(x)


def silu(x: X) -> X:
    """`x · σ(x)`, also called swish (Hendrycks & Gimpel 2016; Ramachandran et al. 2017)."""
    return x * sigmoid(x)


def softplus(x: X) -> X:
    """`log(1 + eˣ)`, the smooth relu."""
    return jnp.logaddexp(x, 0)


def gelu_erf(x: X) -> X:
    """`x · Φ(x)`, Φ the normal distribution function (Hendrycks & Gimpel 2016); as in BERT, ViT."""
    return 0.5 * x * (1 + lax.erf(x / math.sqrt(2)))


def gelu_tanh(x: X) -> X:
    """The same paper's tanh approximation, off by up to 5e-4; GPT-2 uses it."""
    return 0.5 * x * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x: X, axis: int = -1) -> X:
    """`eˣ / Σ eˣ` along an axis; the maximum is subtracted first, so that nothing overflows."""
    weights = jnp.exp(x - lax.stop_gradient(jnp.max(x, axis, keepdims=True)))
    return weights / jnp.sum(weights, axis, keepdims=True)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "silu": silu,
    "softplus": softplus,
    "gelu_erf": gelu_erf,
    "gelu_tanh": gelu_tanh,
}
"""Activations that a model's config may name."""
