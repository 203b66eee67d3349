"""Losses over a batch, as their papers print them, computed stably."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mean_squared_error(
    predicted: Float[Array, " B"], target: Float[Array, " B"]
) -> Float[Array, ""]:
    """``1/B Σ (ŷ - y)²``, in float32."""
    return jnp.mean(jnp.square(predicted.astype(jnp.float32) - target))


def square_errors(told: Float[Array, "B *I"], wanted: Float[Array, "B *I"]) -> Float[Array, " B"]:
    """``1/n ‖x̂ - x‖²`` of each row of n numbers, in float32."""
    square = jnp.square(told.astype(jnp.float32) - wanted.astype(jnp.float32))
    return jnp.mean(square, axis=range(1, square.ndim))


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


def discriminator_loss(real: Float[Array, " B"], fake: Float[Array, " B"]) -> Float[Array, ""]:
    """``L_D = -E_x[log D(x)] - E_z[log(1 - D(G(z)))]`` (Goodfellow et al. 2014, eq. 1), in float32.

    Args:
      real: logits l of images x, with ``D(x) = σ(l)``.
      fake: logits of generated images G(z).
    """
    # log(1 - σ(l)) = log σ(-l), which is finite where 1 - σ(l) is rounded to 0.
    return -_mean_log_sigmoid(real) - _mean_log_sigmoid(-fake)


def generator_loss(fake: Float[Array, " B"]) -> Float[Array, ""]:
    """``L_G = -E_z[log D(G(z))]``, the non-saturating one (Goodfellow et al. 2014, section 3)."""
    return -_mean_log_sigmoid(fake)


def minimax_generator_loss(fake: Float[Array, " B"]) -> Float[Array, ""]:
    """``E_z[log(1 - D(G(z)))]`` (Goodfellow et al. 2014, eq. 1): what the discriminator maximises.

    Its gradient vanishes where the discriminator is sure, as it is at first.
    """
    return _mean_log_sigmoid(-fake)


def critic_loss(real: Float[Array, " B"], fake: Float[Array, " B"]) -> Float[Array, ""]:
    """``E_z[f(G(z))] - E_x[f(x)]`` (Arjovsky et al. 2017, eq. 2), in float32.

    Its negative is the Wasserstein distance where f is the best of all 1-Lipschitz functions.
    """
    return jnp.mean(fake.astype(jnp.float32)) - jnp.mean(real.astype(jnp.float32))


def critic_generator_loss(fake: Float[Array, " B"]) -> Float[Array, ""]:
    """``-E_z[f(G(z))]`` (Arjovsky et al. 2017, algorithm 1), in float32."""
    return -jnp.mean(fake.astype(jnp.float32))


def gaussian_log_likelihood(
    x: Float[Array, "B *I"], mean: Float[Array, "B *I"], log_sigma: Float[Array, ""]
) -> Float[Array, " B"]:
    """``log N(x; μ, σ² I) = -Σ (x-μ)² / 2σ² - D/2 log(2πσ²)``, in float32."""
    log_sigma = log_sigma.astype(jnp.float32)
    scaled = (x.astype(jnp.float32) - mean.astype(jnp.float32)) * jnp.exp(-log_sigma)
    each = jnp.square(scaled) / 2 + log_sigma + math.log(2 * math.pi) / 2
    return -jnp.sum(each, axis=range(1, x.ndim))


def kl_from_standard_normal(
    mean: Float[Array, "B Z"], log_var: Float[Array, "B Z"]
) -> Float[Array, " B"]:
    """``KL(N(m, diag s²) ‖ N(0, I)) = ½ Σ (m² + s² - log s² - 1)``, in float32.

    Kingma & Welling 2014, appendix B.
    """
    mean, log_var = mean.astype(jnp.float32), log_var.astype(jnp.float32)
    return jnp.sum(jnp.square(mean) + jnp.expm1(log_var) - log_var, axis=-1) / 2


def gradient_penalty(gradients: Float[Array, "B *I"]) -> Float[Array, ""]:
    """``E_x̂[(‖∇f(x̂)‖ - 1)²]`` (Gulrajani et al. 2017, eq. 3), in float32.

    Args:
      gradients: ∇f(x̂), each at a point between an image and a generated one.
    """
    # The root has no slope at 0, where a dead critic would turn its parameters into NaN.
    norms = jnp.sqrt(jnp.maximum(_square_norms(gradients), 1e-24))
    return jnp.mean(jnp.square(norms - 1))


def r1_penalty(gradients: Float[Array, "B *I"]) -> Float[Array, ""]:
    """``½ E_x[‖∇D(x)‖²]`` at real images (Mescheder et al. 2018, eq. 9 with γ = 1), in float32."""
    return jnp.mean(_square_norms(gradients)) / 2


def _mean_log_sigmoid(logits: Float[Array, " B"]) -> Float[Array, ""]:
    return jnp.mean(jax.nn.log_sigmoid(logits.astype(jnp.float32)))


def _square_norms(gradients: Float[Array, "B *I"]) -> Float[Array, " B"]:
    return jnp.sum(jnp.square(gradients.astype(jnp.float32)), axis=range(1, gradients.ndim))
