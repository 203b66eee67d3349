"""Scaled dot-product attention (Vaswani et al. 2017, "Attention is all you need", eq. 1).

    attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V

Axes: B batch, T queries, S keys, N query heads, K key/value heads, H = d_k head width. With fewer
key/value heads than query heads, each serves N / K neighbouring query heads (Ainslie et al. 2023,
"GQA"; one for all: Shazeer 2019).
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Queries = Float[Array, "B T N H"]
Keys = Float[Array, "B S K H"]
Mask = Bool[Array, "#B #N #T S"]  # True where a query may look
Bias = Float[Array, "#B #N #T S"]


def attention(
    q: Queries, k: Keys, v: Keys, mask: Mask | None = None, bias: Bias | None = None
) -> Queries:
    """Each query's average of the values, weighted by how well its key fits.

    A query that may look nowhere gets 0.
    """
    weights = attention_weights(q, k, mask, bias).astype(v.dtype)
    return jnp.einsum("bnts,bsnh->btnh", weights, _for_each_query_head(v, q.shape[2]))


def attention_weights(
    q: Queries, k: Keys, mask: Mask | None = None, bias: Bias | None = None
) -> Float[Array, "B N T S"]:
    """`softmax(Q Kᵀ / √d_k + bias)` over the keys that the mask leaves, in float32.

    √d_k keeps the variance of the scores, a sum of d_k products, at 1 (section 3.2.1).
    """
    scores = jnp.einsum("btnh,bsnh->bnts", q, _for_each_query_head(k, q.shape[2]))
    scores = scores.astype(jnp.float32) / math.sqrt(q.shape[-1])  # bfloat16 loses 2 digits here
    if bias is not None:
        scores = scores + bias
    if mask is None:
        return _softmax(scores)
    # -inf rather than a large negative number: what is masked weighs exactly 0.
    return _softmax(jnp.where(mask, scores, -jnp.inf))


def _softmax(scores: Float[Array, "B N T S"]) -> Float[Array, "B N T S"]:
    """Over the last axis; a row of -inf, which has no maximum to subtract, becomes 0."""
    largest = lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(largest), largest, 0))
    return weights / jnp.maximum(jnp.sum(weights, -1, keepdims=True), jnp.finfo(jnp.float32).tiny)


def _for_each_query_head(x: Keys, num_heads: int) -> Float[Array, "B S N H"]:
    if num_heads % x.shape[2]:
        raise ValueError(f"{x.shape[2]} key/value heads do not divide {num_heads} query heads")
    return jnp.repeat(x, num_heads // x.shape[2], axis=2)


def causal_mask(num_tokens: int) -> Bool[Array, "1 1 T T"]:
    """Lets each position see itself and those before it (section 3.2.3)."""
    return jnp.tril(jnp.ones((1, 1, num_tokens, num_tokens), bool))


def padding_mask(lengths: Int[Array, " B"], num_keys: int) -> Bool[Array, "B 1 1 S"]:
    """Hides the positions from each sequence's length on."""
    return (jnp.arange(num_keys) < lengths[:, None])[:, None, None, :]
