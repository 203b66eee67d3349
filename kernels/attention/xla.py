"""Attention for XLA's CPU backend: blocks of queries, and a backward pass of its own.

`flash.py` has the equations. The backward pass computes the weights again from the log-sum-exp,
block by block, so no array of T·S numbers exists. Only if there are fewer queries than a block has
are the weights kept, as the reference keeps them: one product of seven less. There are two forms:

- Up to 1,024 queries each block of 256 is compiled by itself. It sees all its keys at once, with a
  causal mask those up to its own end only, so that three eighths of the work fall away at most. XLA
  may have all blocks of a head in memory together.
- From there on, or where many query heads share their keys, the blocks are steps of loops, over
  queries and within over keys as far as a mask lets them see: one block is in memory at a time.

A loop goes over the heads of all rows, as few at a time as keep a block's scores in the cache, and
reads and writes them where they lie in q, k and v: nothing as large as those is turned or repeated.
Scores lie keys by queries, Sᵀ. So K̇ = Ṡᵀ Q and V̇ = Pᵀ Ȯ need nothing turned, and in Oᵀ = Vᵀ Pᵀ and
Q̇ᵀ = Kᵀ Ṡᵀ the narrow matrix is; products that turn the wide one take up to twice as long. XLA's
libraries turn the narrow one as they read it, unless a product has more than one axis for its rows
or columns: then XLA writes a turned copy first, for every block. All arithmetic is float32.

On 2 cores, two causal sequences of 1,024 tokens with 12 heads of 64, forward and backward, take
less than half the reference's time and a tenth of its temporary memory. Whether PyTorch is faster
depends on the processor: docs/benchmarks.md has the figures.
Where XLA partitions a program over a mesh, it cannot cut the loop: each device computes all heads.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kernels.attention import flash
from kernels.attention.flash import TINY, Blocks, Launch, Segments
from zoo.functional.attention import Bias, Keys, Mask, Queries, Visible
from zoo.functional.attention import attention as reference

FEW_QUERIES = 128  # for which the reference is as fast on one device
BLOCK = 256  # queries
MOST_BLOCKS = 4  # that are compiled each by itself
SCORES = 2**18  # in a step of the loop: 1 MB
MOST_SCORES = 2**22  # of all blocks that are compiled each by itself: 16 MB
LOOPED = Blocks(queries=512, keys=512)  # at most, of what is a step of a loop


@dataclass(frozen=True)
class Form:
    """What must be known when it is compiled."""

    causal: bool
    block: int  # queries
    parts: int  # steps of the loop for each row; divides K
    keeps_weights: bool  # for the backward pass, and else the log-sum-exp of each query


Rules = tuple[Array | None, Segments]  # lengths and segments of a mask


def attention(
    q: Queries,
    k: Keys,
    v: Keys,
    mask: Mask | Visible | None = None,
    bias: Bias | None = None,
) -> Queries:
    """`zoo.functional.attention`; differentiable backwards, not by `jax.jvp`, and in loops once.

    It is that function itself for up to 128 queries, for a bias, for a mask that is an array,
    and for other types than float32 and bfloat16.

    Raises:
        ValueError: the heads of keys do not divide those of queries.
    """
    served = bias is None and q.shape[1] > FEW_QUERIES
    served &= jnp.result_type(q, k, v) in (jnp.float32, jnp.bfloat16)
    if served and (mask is None or isinstance(mask, Mask)):
        few = q.shape[1] <= MOST_BLOCKS * BLOCK
        few &= q.shape[1] * k.shape[1] * flash.size_of_group(q, k) <= MOST_SCORES
        return (in_blocks if few else in_loops)(q, k, v, mask)
    return reference(q, k, v, mask, bias)


def in_blocks(
    q: Queries, k: Keys, v: Keys, mask: Mask | None = None, *, block: int = BLOCK
) -> Queries:
    """`attention` by blocks of queries, each compiled by itself, whatever their number.

    Args:
        block: queries in each.

    Raises:
        ValueError: the heads of keys do not divide those of queries.
    """
    num_keys, num_kv_heads = k.shape[1:3]
    num_heads = num_kv_heads * flash.size_of_group(q, k)
    fewest = math.ceil(num_heads * min(block, q.shape[1]) * num_keys / SCORES)
    divisors = [parts for parts in range(1, num_kv_heads + 1) if num_kv_heads % parts == 0]
    parts = next((parts for parts in divisors if parts >= fewest), num_kv_heads)
    mask = Mask() if mask is None else mask
    form = Form(mask.causal, block, parts, keeps_weights=q.shape[1] < block)
    o: Any = _attend(form, q, k, v, (mask.lengths, mask.segments))
    return o


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(form: Form, q: Array, k: Array, v: Array, rules: Rules):
    return _forward(form, q, k, v, rules)[0]


def _forward(form: Form, q: Array, k: Array, v: Array, rules: Rules):
    def visit(o: Array, step: Array):
        q_s, k_s, v_s = (_take(x, step, form.parts) for x in (q, k, v))
        q_s = _grouped(q_s, k_s) * q.shape[-1] ** -0.5
        outputs, kept = [], []
        for start, end, seen in _blocks(form, q, k):
            s = _by_keys(k_s[:, :seen], q_s[:, :, start:end])
            s = _hide(s, start, step, form, rules)
            m = jnp.max(s, axis=1, keepdims=True)
            m = jnp.where(jnp.isfinite(m), m, 0)  # -inf where a query may look nowhere
            p = jnp.exp(s - m)
            total = jnp.maximum(jnp.sum(p, axis=1, keepdims=True), TINY)
            outputs.append(_by_queries(v_s[:, :seen], p) / total[:, 0, ..., None])
            kept.append(p / total if form.keeps_weights else m + jnp.log(total))
        return _put(o, jnp.concatenate(outputs, axis=2), step, form.parts), kept

    o, kept = lax.scan(visit, jnp.zeros_like(q, dtype=v.dtype), _steps(q, form.parts))
    return o, (q, k, v, rules, o, kept)


def _backward(form: Form, residuals, d_o: Array):
    q, k, v, rules, o, kept = residuals
    scale = q.shape[-1] ** -0.5

    def visit(gradients: Any, inputs: tuple[Array, list[Array]]):
        step, kept = inputs
        q_s, k_s, v_s, o_s, d_o_s = (_take(x, step, form.parts) for x in (q, k, v, o, d_o))
        q_s, o_s, d_o_s = (_grouped(x, k_s) for x in (q_s * scale, o_s, d_o_s))
        delta = jnp.sum(o_s * d_o_s, axis=-1)[:, None]  # D
        d_q, d_k, d_v = [], jnp.zeros_like(k_s), jnp.zeros_like(v_s)
        for (start, end, seen), kept_i in zip(_blocks(form, q, k), kept, strict=True):
            q_i, d_o_i = q_s[:, :, start:end], d_o_s[:, :, start:end]
            p = kept_i
            if not form.keeps_weights:
                s = _hide(_by_keys(k_s[:, :seen], q_i), start, step, form, rules)
                p = jnp.exp(s - kept_i)
            d_s = p * (_by_keys(v_s[:, :seen], d_o_i) - delta[..., start:end])
            d_q.append(_by_queries(k_s[:, :seen], d_s))
            d_k, d_v = _add(d_k, _over_queries(d_s, q_i)), _add(d_v, _over_queries(p, d_o_i))
        parts = jnp.concatenate(d_q, axis=2) * scale, d_k, d_v
        return tuple(
            _put(x, y, step, form.parts) for x, y in zip(gradients, parts, strict=True)
        ), None

    zeros = jnp.zeros_like(q), jnp.zeros_like(k), jnp.zeros_like(v)
    gradients, _ = lax.scan(visit, zeros, (_steps(q, form.parts), kept))
    return *gradients, None


_attend.defvjp(_forward, _backward)


def in_loops(
    q: Queries, k: Keys, v: Keys, mask: Mask | None = None, *, largest: Blocks = LOOPED
) -> Queries:
    """`attention` by loops over blocks of queries and of keys; differentiable backwards, once.

    Args:
        largest: how many of each are in a block, at most.

    Raises:
        ValueError: the heads of keys do not divide those of queries.
    """
    flash.size_of_group(q, k)
    mask, width = Mask() if mask is None else mask, q.shape[-1]
    blocks = Blocks(
        queries=_equal(q.shape[1], largest.queries), keys=_equal(k.shape[1], largest.keys)
    )
    launch = Launch(
        scale=width**-0.5, causal=mask.causal, forward=blocks, backward=blocks, interpret=False
    )
    return flash.padded(_attend_in_loops, q, k, v, mask, width, launch)


def _equal(size: int, largest: int) -> int:
    """The size of blocks that are all as long, so that little is added to fill the last."""
    return math.ceil(size / math.ceil(size / largest))


def _forward_in_loops(
    launch: Launch, q: Array, k: Array, v: Array, lengths: Array, segments: Segments
) -> tuple[Array, Array]:
    blocks, parts = launch.forward, k.shape[2]

    def visit(o: Array, step: Array):
        q_s, k_s, v_s = (_take(x, step, parts) for x in (q, k, v))
        q_s = _cut(q_s * launch.scale, blocks.queries)
        k_s, v_s = (_cut(x, blocks.keys) for x in (k_s, v_s))
        rules = _rules(launch, q.shape[1], step // parts, lengths, segments)

        def over_queries(_, i: Array):
            end, hide = rules(i)

            def over_keys(j: Array, carry: tuple[Array, Array, Array]):
                a, m, total = carry
                s = hide(k_s[j] @ q_s[i].T, j)
                m_after = jnp.maximum(m, jnp.max(s, axis=0))
                p, shrink = jnp.exp(s - m_after), jnp.exp(m - m_after)
                return a * shrink + v_s[j].T @ p, m_after, total * shrink + jnp.sum(p, axis=0)

            a = jnp.zeros_like(q_s[i].T)
            start = a, jnp.full_like(a[0], flash.LOWEST), a[0]
            a, m, total = lax.fori_loop(0, end, over_keys, start)
            total = jnp.maximum(total, TINY)
            return None, ((a / total).T, m + jnp.log(total))

        _, (outputs, lse) = lax.scan(over_queries, None, jnp.arange(len(q_s)))
        return _put(o, outputs, step, parts), lse

    return lax.scan(visit, jnp.zeros_like(q), _steps(q, parts))


def _backward_in_loops(
    launch: Launch, q, k, v, lengths, segments, d_o, lse, delta
) -> tuple[Array, ...]:
    blocks, parts, scale = launch.backward, k.shape[2], launch.scale
    delta = jnp.swapaxes(delta, 1, 2).reshape(lse.shape)  # of all blocks of each step, as lse

    def visit(gradients: Any, inputs: tuple[Array, Array, Array]):
        step, lse, delta = inputs
        q_s, k_s, v_s, d_o_s = (_take(x, step, parts) for x in (q, k, v, d_o))
        q_s, d_o_s = (_cut(x, blocks.queries) for x in (q_s * scale, d_o_s))
        k_s, v_s = (_cut(x, blocks.keys) for x in (k_s, v_s))
        rules = _rules(launch, q.shape[1], step // parts, lengths, segments)

        def over_queries(sums: Any, i: Array):
            end, hide = rules(i)

            def over_keys(j: Array, carry: tuple[Array, Array, Array]):
                d_q, d_k, d_v = carry
                p = jnp.exp(hide(k_s[j] @ q_s[i].T, j) - lse[i])
                d_s = p * (v_s[j] @ d_o_s[i].T - delta[i])
                d_k, d_v = d_k.at[j].add(d_s @ q_s[i]), d_v.at[j].add(p @ d_o_s[i])
                return d_q + k_s[j].T @ d_s, d_k, d_v

            start = jnp.zeros_like(q_s[i].T), *sums
            d_q, *sums = lax.fori_loop(0, end, over_keys, start)
            return tuple(sums), d_q.T * scale

        zeros = jnp.zeros_like(k_s), jnp.zeros_like(v_s)
        (d_k, d_v), d_q = lax.scan(over_queries, zeros, jnp.arange(len(q_s)))
        found = zip(gradients, (d_q, d_k, d_v), strict=True)
        return tuple(_put(x, part, step, parts) for x, part in found), None

    zeros = jnp.zeros_like(q), jnp.zeros_like(k), jnp.zeros_like(v)
    return lax.scan(visit, zeros, (_steps(q, parts), lse, delta))[0]


_attend_in_loops = flash.with_backward(_forward_in_loops, _backward_in_loops)


def _rules(launch: Launch, num_queries: int, row: Array, lengths: Array, segments: Segments):
    """`i -> (end, hide)`: how many blocks of keys block i of the queries sees, and what it hides.

    A step has the blocks of a whole group, those of one head after those of another.
    """
    blocks, length = launch.forward, lengths[row]
    numbers = segments and (
        _cut(segments[0][row], blocks.queries),
        _cut(segments[1][row], blocks.keys),
    )

    def of_block(i: Array):
        i = i % (num_queries // blocks.queries)

        def hide(s: Array, j: Array) -> Array:
            first = i * blocks.queries, j * blocks.keys
            of_both = numbers and (numbers[0][i], numbers[1][j][:, None])
            return flash.hide(s, first, length, launch.causal, of_both, key_axis=0)

        return flash.end_of_keys(i, length, launch.causal, blocks), hide

    return of_block


def _cut(x: Array, block: int) -> Array:
    """`[n, T, H] -> [n·T / block, block, H]`, and `[T] -> [T / block, block]`."""
    return x.reshape(-1, block, *x.shape[2:])


def _steps(q: Array, parts: int) -> Array:
    return jnp.arange(len(q) * parts)


def _blocks(form: Form, q: Array, k: Array) -> Iterator[tuple[int, int, int]]:
    """Of each block of queries the start and the end, and how many keys it sees."""
    num_queries, num_keys = q.shape[1], k.shape[1]
    for start in range(0, num_queries, form.block):
        end = min(start + form.block, num_queries)
        yield start, end, min(end, num_keys) if form.causal else num_keys


def _take(x: Array, step: Array, parts: int) -> Array:
    """The heads of a step, `[B, T, N, H] -> [n, T, H]`."""
    heads = x.shape[2] // parts
    start = step // parts, 0, step % parts * heads, 0
    part = lax.dynamic_slice(x, start, (1, x.shape[1], heads, x.shape[3]))[0]
    return jnp.swapaxes(part, 0, 1).astype(jnp.float32)


def _put(x: Array, part: Array, step: Array, parts: int) -> Array:
    """x with the heads of a step, `[n, T, H]` or `[n, G, T, H]`, in their place."""
    heads = x.shape[2] // parts
    part = jnp.swapaxes(part.reshape(heads, x.shape[1], x.shape[3]), 0, 1).astype(x.dtype)
    start = step // parts, 0, step % parts * heads, 0
    return lax.dynamic_update_slice(x, part[None], start)


def _grouped(q_s: Array, k_s: Array) -> Array:
    """`[n·G, T, H] -> [n, G, T, H]`: the query heads of each key/value head."""
    return q_s.reshape(len(k_s), -1, *q_s.shape[1:])


def _by_keys(k_s: Array, q_s: Array) -> Array:
    """K Qᵀ, `[n, S, H] · [n, G, T, H] -> [n, S, G, T]`."""
    s = jnp.einsum("nsh,nqh->nsq", k_s, _flat(q_s))
    return s.reshape(*s.shape[:2], *q_s.shape[1:3])


def _by_queries(v_s: Array, weights: Array) -> Array:
    """`(Vᵀ Pᵀ)ᵀ`, `[n, S, H] · [n, S, G, T] -> [n, G, T, H]`."""
    turned = jnp.einsum("nsh,nsq->nhq", v_s, weights.reshape(*weights.shape[:2], -1))
    return jnp.moveaxis(turned.reshape(*turned.shape[:2], *weights.shape[2:]), 1, 3)


def _over_queries(weights: Array, d_o_s: Array) -> Array:
    """Pᵀ Ȯ, `[n, S, G, T] · [n, G, T, H] -> [n, S, H]`."""
    weights = weights.reshape(*weights.shape[:2], -1)
    return jnp.einsum("nsq,nqh->nsh", weights, _flat(d_o_s))


def _flat(q_s: Array) -> Array:
    """`[n, G, T, H] -> [n, G·T, H]`: XLA copies an operand of a product that has more axes."""
    return q_s.reshape(len(q_s), -1, q_s.shape[-1])


def _hide(s: Array, start: int, step: Array, form: Form, rules: Rules) -> Array:
    """Scores `[n, S, G, T]` with -inf where their queries, counted from `start`, may not look."""
    lengths, segments = rules
    keys, queries = jnp.arange(s.shape[1])[:, None], start + jnp.arange(s.shape[3])
    row = step // form.parts
    visible = jnp.full((len(keys), len(queries)), True)
    if form.causal:
        visible &= keys <= queries
    if lengths is not None:
        visible &= keys < lengths[row]
    if segments is not None:
        ours, theirs = segments[0][row], segments[1][row]
        visible &= theirs[: len(keys), None] == ours[start : start + len(queries)]
    return jnp.where(visible[:, None], s, -jnp.inf)


def _add(total: Array, part: Array) -> Array:
    """A sum of `[n, S, H]` with a part that has the first keys only."""
    return lax.dynamic_update_slice_in_dim(total, total[:, : part.shape[1]] + part, 0, axis=1)
