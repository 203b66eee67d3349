"""Copying from a source (See et al. 2017, "Get to the point", eq. 9; Vinyals et al. 2015).

    p(v) = g softmax(logits)_v + (1 - g) Σ_{s: x_s = v} a_s

A word that the vocabulary makes likely, or one that stands in the source where the decoder looks.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from zoo.functional.activation import sigmoid, softmax


def pointer_mixture(
    logits: Float[Array, "B T V"],
    gate: Float[Array, "B T"],
    weights: Float[Array, "B T S"],
    source: Int[Array, "B S"],
) -> Float[Array, "B T V"]:
    """`log p` in float32, which are logits themselves: their softmax is p.

    Args:
        logits: of the vocabulary.
        gate: the logit of g, that a word comes from the vocabulary.
        weights: a, where each step looks in its source; they add up to 1.
        source: x, the tokens that stand there.
    """
    g = sigmoid(gate.astype(jnp.float32))[..., None]
    p = g * softmax(logits.astype(jnp.float32))
    rows, steps = jnp.arange(p.shape[0])[:, None, None], jnp.arange(p.shape[1])[:, None]
    copied = (1 - g) * weights.astype(jnp.float32)
    p = p.at[rows, steps, source[:, None]].add(copied)
    # A word of probability 0 in float32 would have no gradient that is a number.
    return jnp.log(jnp.maximum(p, jnp.finfo(jnp.float32).tiny))
