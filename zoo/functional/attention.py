"""Scaled dot-product attention (Vaswani et al. 2017, "Attention is all you need", eq. 1).

    attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V

Axes: B batch, T queries, S keys, N query heads, K key/value heads, H = d_k head width. With fewer
key/value heads than query heads, each serves N / K neighbouring query heads (Ainslie et al. 2023,
"GQA"; one for all: Shazeer 2019).
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Queries = Float[Array, "B T N H"]
Keys = Float[Array, "B S K H"]
Visible = Bool[Array, "#B #N #T S"]  # True where a query may look
Bias = Float[Array, "#B #N #T S"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mask:
    """Which keys a query may look at, told by rules that must all hold.

    From rules a kernel sees what it may leave out, and needs no array of T·S truth values.
    """

    causal: bool = field(default=False, metadata={"static": True})  # no key after the query
    lengths: Int[Array, " B"] | None = None  # of each row's keys; what lies beyond is padding
    segments: tuple[Int[Array, "B T"], Int[Array, "B S"]] | None = None  # equal numbers only

    def array(self, num_queries: int, num_keys: int) -> Visible:
        """The rules written out; query t and key t stand at the same place."""
        queries, keys = jnp.arange(num_queries)[:, None], jnp.arange(num_keys)
        visible = jnp.full((1, 1, num_queries, num_keys), True)
        if self.causal:
            visible &= keys <= queries
        if self.lengths is not None:
            visible &= keys < self.lengths[:, None, None, None]
        if self.segments is not None:
            ours, theirs = self.segments
            visible &= (ours[:, :, None] == theirs[:, None, :])[:, None]
        return visible


def attention(
    q: Queries,
    k: Keys,
    v: Keys,
    mask: Mask | Visible | None = None,
    bias: Bias | None = None,
) -> Queries:
    """Each query's average of the values, weighted by how well its key fits.

    A query that may look nowhere gets 0.
    """
    weights = attention_weights(q, k, mask, bias).astype(v.dtype)
    return jnp.einsum("bnts,bsnh->btnh", weights, _for_each_query_head(v, q.shape[2]))


def attention_weights(
    q: Queries, k: Keys, mask: Mask | Visible | None = None, bias: Bias | None = None
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
    if isinstance(mask, Mask):
        mask = mask.array(*scores.shape[-2:])
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
