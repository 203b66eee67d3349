"""Losses over a batch, as their papers print them, computed stably."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mean_squared_error(
    predicted: Float[Array, " B"], target: Float[Array, " B"]
) -> Float[Array, ""]:
    """``1/B Σ (ŷ - y)²``, in float32."""
    return jnp.mean(jnp.square(predicted.astype(jnp.float32) - target))


def negative_sampling(
    scores: Float[Array, "*B"], noise: Float[Array, "*B K"]
) -> Float[Array, "*B"]:
    """``-log σ(v'_c·v_w) - Σ_k log σ(-v'_k·v_w)`` (Mikolov et al. 2013, eq. 4), in float32.

    Args:
      scores: ``v'_c·v_w`` of pairs of a word and one that stands near it.
      noise: ``v'_k·v_w`` of the same word with K words drawn at random.
    """
    scores, noise = scores.astype(jnp.float32), noise.astype(jnp.float32)
    return -jax.nn.log_sigmoid(scores) - jax.nn.log_sigmoid(-noise).sum(-1)


def shared_negative_sampling(
    scores: Float[Array, "B T S"],
    is_pair: Bool[Array, "B T S"],
    noise: Float[Array, "B T N"],
    num_negatives: int,
) -> Float[Array, "B T"]:
    """:func:`negative_sampling` summed over the pairs of each word, with noise shared in a block.

    The words of a block meet the same N random words, of which each counts K/N for every pair, so
    that a pair meets K of them as in the paper. The scores are then a product of two matrices, many
    times as fast as as many products of two vectors (Ji et al. 2016, "Parallelizing word2vec in
    shared and distributed memory").

    Args:
      scores: ``v'_c·v_w`` of T words with S words around them.
      is_pair: which of these stand near each other.
      noise: ``v'_n·v_w`` of the T words with N words drawn at random.
      num_negatives: K.
    """
    scores, noise = scores.astype(jnp.float32), noise.astype(jnp.float32)
    near = -jnp.where(is_pair, jax.nn.log_sigmoid(scores), 0).sum(-1)
    far = -jax.nn.log_sigmoid(-noise).mean(-1)
    return near + num_negatives * is_pair.sum(-1) * far
