"""Cross-entropy of a predicted distribution against a label or a target distribution."""

import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int


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
    log_probs = logits - logsumexp(logits, axis=-1, keepdims=True)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        loss = -jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    else:
        loss = -jnp.sum(targets * log_probs, axis=-1)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * jnp.mean(log_probs, axis=-1)
    return loss


def sigmoid_cross_entropy(
    logits: Float[Array, "*B"], targets: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """`L = -t log σ(z) - (1 - t) log(1 - σ(z)) = log(1 + eᶻ) - t z`, elementwise in float32."""
    logits = logits.astype(jnp.float32)
    return jnp.logaddexp(logits, 0) - targets * logits
