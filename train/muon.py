"""Muon: momentum whose matrices are made orthogonal (Jordan et al. 2024).

    v ← μ v + g,    u = g + μ v,    θ ← θ - α √max(1, out/in) O(u)

with `O(UΣVᵀ) ≈ UVᵀ`: of a momentum with few strong directions, every direction counts the same.
The momentum is Nesterov's, and the root evens out the size of updates of wide and narrow layers.
"""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

# The steepest at 0 of those that end near 1: singular values fall between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5


def orthogonal(x: Float[Array, "M N"]) -> Float[Array, "M N"]:
    """About `UVᵀ` of a matrix `UΣVᵀ`, by Newton-Schulz iterations.

    An iteration is `X ← P X` with `P = a I + b G + c G²` and `G = X Xᵀ`. Every P is a polynomial of
    the first G, so that all of them commute and `G ← P G P`: the iterations need no more than the
    small square G, and X is multiplied once, by the product of all P. In exact arithmetic it is the
    published iteration; it takes 25 products of the smaller size, and not 45, where N = 4 M.
    """
    if x.shape[0] > x.shape[1]:
        return orthogonal(x.T).T
    a, b, c = COEFFICIENTS
    x = x / (jnp.linalg.norm(x) + 1e-8)  # singular values of at most 1, and zeros stay zeros
    gram, product = x @ x.T, jnp.eye(x.shape[0], dtype=x.dtype)
    for iteration in range(NUM_ITERATIONS):
        p = a * jnp.eye(x.shape[0], dtype=x.dtype) + b * gram + c * (gram @ gram)
        product = p if iteration == 0 else p @ product
        gram = p @ gram @ p
    return product @ x


def muon(
    learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Muon for a tree of matrices [in, out], with decoupled weight decay.

    The columns may have several axes, [in, *out].
    """

    def update(x: Float[Array, "I *O"]) -> Float[Array, "I *O"]:
        matrix = x.reshape(x.shape[0], -1)
        scale = math.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
        return scale * orthogonal(matrix).reshape(x.shape)

    return optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.stateless(lambda updates, params: jax.tree.map(update, updates)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
