"""Cross-entropy of a predicted distribution against a label or a target distribution."""

import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from zoo.functional.dense import dense


def softmax_cross_entropy(
    logits: Float[Array, "*B V"],
    targets: Int[Array, "*B"] | Float[Array, "*B V"],
    label_smoothing: float = 0.0,
) -> Float[Array, "*B"]:
    """`L = -Σ_v t_v log softmax(logits)_v`, one number an example, in float32.

    Args:
        logits: any dtype; the arithmetic is float32, as bfloat16 would lose small differences.
        targets: class numbers in [0, V), or probabilities t.
        label_smoothing: s mixes the target with the uniform one, `t ← (1 - s) t + s / V`
            (Szegedy et al. 2016, sec. 7).
    """
    logits = logits.astype(jnp.float32)
    log_normalizer = logsumexp(logits, axis=-1)  # one number an example: no second copy of logits
    if jnp.issubdtype(targets.dtype, jnp.integer):
        target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        loss = log_normalizer - target_logits
    else:
        loss = -jnp.sum(targets * (logits - log_normalizer[..., None]), axis=-1)
    if label_smoothing:
        uniform = log_normalizer - jnp.mean(logits, axis=-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * uniform
    return loss


def linear_cross_entropy(
    x: Float[Array, "*B D"],
    kernel: Float[Array, "D V"],
    targets: Int[Array, "*B"],
    bias: Float[Array, " V"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, "*B"]:
    """:func:`softmax_cross_entropy` of the logits `x W + b`: a model's last layer and its loss.

    As one operation it may be computed without all logits of a batch in memory.
    """
    return softmax_cross_entropy(dense(x, kernel, bias), targets, label_smoothing)


def sigmoid_cross_entropy(
    logits: Float[Array, "*B"], targets: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """`L = -t log σ(z) - (1 - t) log(1 - σ(z)) = log(1 + eᶻ) - t z`, elementwise in float32."""
    logits = logits.astype(jnp.float32)
    return jnp.logaddexp(logits, 0) - targets * logits
