"""What the back ends of flash attention share: the mathematics of a block, padding, refusals.

Attention is computed in blocks of queries by keys, so that no array of T·S numbers exists (Dao et
al. 2022, "FlashAttention", algorithms 1 and 4; loops as in Dao 2023, "FlashAttention-2", algorithms
1 and 2). Going over the key blocks j, a block of queries keeps the largest score m so far, the sum
l of the weights relative to it and the unnormalised output a (online softmax, Milakov & Gimelshein
2018, algorithm 3):

    S = Q K_jᵀ / √d_k,   m' = max(m, rowmax S),   P = exp(S - m')
    l ← exp(m - m') l + rowsum P,   a ← exp(m - m') a + P V_j,   m ← m'

and at the end O = a / l. Kept for the backward pass is the log-sum-exp L = m + log l, from which it
computes each block of weights again. A dot over a letter is the gradient with respect to it:

    P = exp(S - L),   V̇ = Pᵀ Ȯ,   D = rowsum(Ȯ ⊙ O)
    Ṡ = P ⊙ (Ȯ Vᵀ - D),   Q̇ = Ṡ K / √d_k,   K̇ = Ṡᵀ Q / √d_k

Statistics, sums and gradients gather in float32; the weights and Ṡ are rounded to the inputs' type
before they are multiplied. A query that may look nowhere has l = 0, O = 0 and no gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array

from kernels.derivative import differentiable_no_more
from kernels.varying import alike
from zoo.functional.attention import Mask

LARGEST_WIDTH = 256  # gemma-2b's, which is compiled: wider heads need smaller blocks than these
LOWEST = float(jnp.finfo(jnp.float32).min)  # m of no score: finite, as -inf - -inf is no number
TINY = float(jnp.finfo(jnp.float32).tiny)  # l of no score, as in the reference


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How many queries and how many keys are in fast memory together."""

    queries: int
    keys: int


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a kernel must know when it is compiled."""

    scale: float  # 1 / √d_k, of the width before it was padded
    causal: bool
    forward: Blocks
    backward: Blocks
    interpret: bool


class Specs(NamedTuple):
    """The grid of a kernel and how its programs see the arrays."""

    grid: tuple[int, ...]
    queries: pl.BlockSpec  # of q, o and their gradients
    rows: pl.BlockSpec  # of the log-sum-exp and D, one number a query
    keys: pl.BlockSpec  # of k, v and their gradients
    segments: tuple[pl.BlockSpec, pl.BlockSpec]  # of queries and of keys


Segments = tuple[Array, Array] | None  # of queries and of keys, int32
Attend = Callable[..., Any]  # (launch, q, k, v, lengths, segments) -> o


def with_backward(forward: Callable[..., Any], backward: Callable[..., Any]) -> Attend:
    """`forward(launch, q, k, v, lengths, segments) -> (o, lse)`, differentiated by `backward`."""
    guard = differentiable_no_more("flash attention", "zoo.functional.attention", 0)
    forward, backward = guard(forward), guard(backward)

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def attend(launch: Launch, *arrays: Any):
        return forward(launch, *arrays)[0]

    def keep(launch: Launch, *arrays: Any):
        o, lse = forward(launch, *arrays)
        return o, (*arrays, o, lse)

    def pull_back(launch: Launch, residuals, d_o: Array):
        *arrays, o, lse = residuals
        delta = jnp.sum(o.astype(jnp.float32) * d_o.astype(jnp.float32), axis=-1)  # D
        return *backward(launch, *arrays, d_o, lse, delta), None, None

    attend.defvjp(keep, pull_back)
    return attend


def served(
    q: Array,
    k: Array,
    v: Array,
    mask: Any,
    bias: Any,
    dtypes: tuple[Any, ...] = (jnp.float32, jnp.bfloat16),
) -> Mask:
    """The mask, None as a mask of no rule, if flash attention serves these arguments.

    Raises:
        NotImplementedError: it does not.
        ValueError: the heads of keys do not divide those of queries.
    """
    instead = "use zoo.functional.attention or jax.nn.dot_product_attention"
    if bias is not None:
        raise NotImplementedError(f"a bias, {bias.shape}, is an array over T and S; {instead}")
    if not (mask is None or isinstance(mask, Mask)):
        raise NotImplementedError(
            f"a mask of shape {mask.shape} is an array over T and S; "
            f"say it by the rules of zoo.functional.attention.Mask, or {instead}"
        )
    dtype = jnp.result_type(q, k, v)
    if dtype not in dtypes:
        names = " nor ".join(jnp.dtype(known).name for known in dtypes)
        raise NotImplementedError(f"{dtype} is neither {names}; {instead}")
    if q.shape[-1] > LARGEST_WIDTH:
        raise NotImplementedError(
            f"heads {q.shape[-1]} wide are wider than {LARGEST_WIDTH}; {instead}"
        )
    size_of_group(q, k)
    return Mask() if mask is None else mask


def size_of_group(q: Array, k: Array) -> int:
    """How many query heads each key/value head serves.

    Raises:
        ValueError: the heads of keys do not divide those of queries.
    """
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"{k.shape[2]} key/value heads do not divide {q.shape[2]} query heads")
    return q.shape[2] // k.shape[2]


def padded(
    attend: Attend, q: Array, k: Array, v: Array, mask: Mask, width: int, launch: Launch
) -> Array:
    """`attend` on tokens padded to whole blocks and heads padded to a width.

    Zeros beyond the width add nothing to a score; keys beyond the end are beyond the lengths, which
    every row has from here on; what queries beyond the end get is cut off.
    """
    dtype = jnp.result_type(q, k, v)
    batch, num_queries, num_keys = *q.shape[:2], k.shape[1]
    more_queries = -num_queries % max(launch.forward.queries, launch.backward.queries)
    more_keys = -num_keys % max(launch.forward.keys, launch.backward.keys)

    def pad(x: Array, more_tokens: int) -> Array:
        widths = [(0, 0), (0, more_tokens), (0, 0), (0, width - x.shape[-1])]
        return jnp.pad(x.astype(dtype), widths)

    lengths = jnp.full(batch, num_keys) if mask.lengths is None else mask.lengths
    lengths = jnp.clip(lengths, 0, num_keys).astype(jnp.int32)
    segments = mask.segments and (
        jnp.pad(mask.segments[0].astype(jnp.int32), [(0, 0), (0, more_queries)]),
        jnp.pad(mask.segments[1].astype(jnp.int32), [(0, 0), (0, more_keys)]),
    )
    q_k_v = pad(q, more_queries), pad(k, more_keys), pad(v, more_keys)
    *arrays, ours, theirs = alike(*q_k_v, lengths, *(segments or (None, None)))
    o = attend(launch, *arrays, None if ours is None else (ours, theirs))
    return o[:, :num_queries, :, : q.shape[-1]].astype(v.dtype)


def end_of_keys(query_block: Any, length: Any, causal: bool, blocks: Blocks) -> Any:
    """How many blocks of keys, from the first, a block of queries has to see."""
    if causal:
        length = jnp.minimum(length, (query_block + 1) * blocks.queries)
    return lax.div(length + blocks.keys - 1, blocks.keys)


def start_of_queries(key_block: Any, causal: bool, blocks: Blocks) -> Any:
    """The first block of queries that sees a block of keys."""
    return lax.div(key_block * blocks.keys, blocks.queries) if causal else 0


def hide(
    scores: Array,
    first: tuple[Any, Any],
    length: Any,
    causal: bool,
    segments: tuple[Array, Array] | None,
    key_axis: int,
) -> Array:
    """A block of scores with -inf where a query may not look, so that it weighs exactly 0.

    Args:
        first: places of the block's first query and first key.
        length: number of real keys.
        segments: of the block's queries and keys, shaped to broadcast against the scores.
        key_axis: of the scores' two axes, the one that counts keys.
    """
    keys = first[1] + lax.broadcasted_iota(jnp.int32, scores.shape, key_axis)
    visible = keys < length
    if causal:
        visible &= keys <= first[0] + lax.broadcasted_iota(jnp.int32, scores.shape, 1 - key_axis)
    if segments is not None:
        visible &= segments[0] == segments[1]
    return jnp.where(visible, scores, -jnp.inf)
