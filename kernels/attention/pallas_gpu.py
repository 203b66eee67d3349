"""Flash attention for NVIDIA GPUs, in Pallas through Triton. `kernels.attention.flash` has the
equations.

Forward and Q̇: one program for a block of queries of one head, in a loop over the blocks of keys.
K̇ and V̇: one program for a block of keys of one key/value head, in a loop over the query heads that
it serves and their blocks of queries, with the scores transposed, keys by queries. No two programs
add to the same number, so every run gives the same result.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

from kernels.attention import flash
from kernels.attention.flash import Blocks, Launch, Segments, Specs
from kernels.product import product
from kernels.varying import output
from zoo.functional.attention import Bias, Keys, Mask, Queries, Visible

SMALLEST = 16  # what a product of Triton takes; all its blocks are powers of two
_LENGTH = pl.BlockSpec((1,), lambda i, n, b: (b,))  # of the program's row


def attention(
    q: Queries,
    k: Keys,
    v: Keys,
    mask: Mask | Visible | None = None,
    bias: Bias | None = None,
    *,
    interpret: bool = False,
) -> Queries:
    """`zoo.functional.attention` in O(T) memory; differentiable backwards, once.

    JAX refuses `jax.jvp` of it, and second derivatives are refused: use the reference there.

    Args:
        interpret: run the same kernels as XLA programs, on any platform.

    Raises:
        NotImplementedError: a bias, a mask that is an array, heads wider than 256, a dtype other
            than float32 and bfloat16.
    """
    mask = flash.served(q, k, v, mask, bias)
    width = _block(q.shape[-1], flash.LARGEST_WIDTH)
    forward, backward = _blocks(width, jnp.result_type(q, k, v))
    launch = Launch(
        scale=q.shape[-1] ** -0.5,
        causal=mask.causal,
        forward=_fitting(forward, q, k),
        backward=_fitting(backward, q, k),
        interpret=interpret,
    )
    return flash.padded(_attend, q, k, v, mask, width, launch)


def _blocks(width: int, dtype: Any) -> tuple[Blocks, Blocks]:
    """Forward and backward: the largest for which an H100's registers suffice.

    By `ptxas -v` for sm_90a, a thread spills at most 12 bytes with these, and hundreds with 64
    queries in float32 or in the backward pass of the widest heads. Products of bfloat16 take tensor
    cores; those of float32 do not, as they are exact.
    """
    if dtype == jnp.float32:
        return Blocks(queries=32, keys=32), Blocks(queries=32, keys=32)
    if width > 128:
        return Blocks(queries=64, keys=64), Blocks(queries=32, keys=64)
    return Blocks(queries=128, keys=64), Blocks(queries=64, keys=64)


def _fitting(blocks: Blocks, q: Array, k: Array) -> Blocks:
    """No larger than the sequences."""
    return Blocks(queries=_block(q.shape[1], blocks.queries), keys=_block(k.shape[1], blocks.keys))


def _block(size: int, most: int) -> int:
    return min(most, max(SMALLEST, pl.next_power_of_2(size)))


def _compiler_params(width: int) -> triton.CompilerParams:
    return triton.CompilerParams(num_warps=4 if width <= 64 else 8, num_stages=2)


def _by_queries(q: Array, k: Array, blocks: Blocks) -> Specs:
    """A program for each block of queries of each head sees all keys of its row."""
    (batch, num_queries, num_heads, width), num_keys = q.shape, k.shape[1]
    group = num_heads // k.shape[2]
    return Specs(
        grid=(num_queries // blocks.queries, num_heads, batch),
        queries=pl.BlockSpec((None, blocks.queries, None, width), lambda i, n, b: (b, i, n, 0)),
        rows=pl.BlockSpec((None, None, blocks.queries), lambda i, n, b: (b, n, i)),
        keys=pl.BlockSpec(
            (None, num_keys, None, width), lambda i, n, b: (b, 0, lax.div(n, group), 0)
        ),
        segments=(
            pl.BlockSpec((None, blocks.queries), lambda i, n, b: (b, i)),
            pl.BlockSpec((None, num_keys), lambda i, n, b: (b, 0)),
        ),
    )


def _by_keys(q: Array, k: Array, blocks: Blocks) -> Specs:
    """A program for each block of keys of each of their heads sees all queries of its group."""
    (batch, num_keys, num_kv_heads, width), num_queries = k.shape, q.shape[1]
    group = q.shape[2] // num_kv_heads
    return Specs(
        grid=(num_keys // blocks.keys, num_kv_heads, batch),
        queries=pl.BlockSpec((None, num_queries, group, width), lambda j, n, b: (b, 0, n, 0)),
        rows=pl.BlockSpec((None, group, num_queries), lambda j, n, b: (b, n, 0)),
        keys=pl.BlockSpec((None, blocks.keys, None, width), lambda j, n, b: (b, j, n, 0)),
        segments=(
            pl.BlockSpec((None, num_queries), lambda j, n, b: (b, 0)),
            pl.BlockSpec((None, blocks.keys), lambda j, n, b: (b, j)),
        ),
    )


def _forward(
    launch: Launch, q: Array, k: Array, v: Array, lengths: Array, segments: Segments
) -> tuple[Array, Array]:
    batch, num_queries, num_heads, width = q.shape
    specs = _by_queries(q, k, launch.forward)
    lse = output(q, (batch, num_heads, num_queries), jnp.float32)
    return pl.pallas_call(
        partial(_forward_kernel, launch=launch),
        grid=specs.grid,
        in_specs=[specs.queries, specs.keys, specs.keys, _LENGTH, segments and specs.segments],
        out_specs=(specs.queries, specs.rows),
        out_shape=(output(q, q.shape, q.dtype), lse),
        compiler_params=_compiler_params(width),
        interpret=launch.interpret,
        name="flash_attention_forward",
    )(q, k, v, lengths, segments)


def _forward_kernel(
    q_ref, k_ref, v_ref, length_ref, segment_refs, o_ref, lse_ref, *, launch: Launch
):
    blocks, i = launch.forward, pl.program_id(0)
    q, length = q_ref[...], length_ref[0]

    def step(j, carry):
        a, m, total = carry
        keys = pl.ds(j * blocks.keys, blocks.keys)
        first = i * blocks.queries, j * blocks.keys
        segments = segment_refs and (segment_refs[0][...][:, None], segment_refs[1][keys][None, :])
        s = product(q, k_ref[keys, :], (1, 1)) * launch.scale
        s = flash.hide(s, first, length, launch.causal, segments, key_axis=1)
        m_after = jnp.maximum(m, jnp.max(s, axis=1))
        p = jnp.exp(s - m_after[:, None])
        shrink = jnp.exp(m - m_after)
        a = a * shrink[:, None] + product(p.astype(v_ref.dtype), v_ref[keys, :], (1, 0))
        return a, m_after, total * shrink + jnp.sum(p, axis=1)

    m = jnp.full(blocks.queries, flash.LOWEST)
    start = jnp.zeros(q.shape, jnp.float32), m, jnp.zeros_like(m)
    end = flash.end_of_keys(i, length, launch.causal, blocks)
    a, m, total = lax.fori_loop(0, end, step, start)
    total = jnp.maximum(total, flash.TINY)
    o_ref[...] = (a / total[:, None]).astype(o_ref.dtype)
    lse_ref[...] = m + jnp.log(total)


def _backward(launch: Launch, q, k, v, lengths, segments, d_o, lse, delta) -> tuple[Array, ...]:
    delta = jnp.swapaxes(delta, 1, 2)  # as lse, [B, N, T]: a program reads neighbours
    inputs = q, k, v, lengths, segments, d_o, lse, delta
    by_queries, by_keys = _by_queries(q, k, launch.backward), _by_keys(q, k, launch.backward)

    def call(kernel: Any, specs: Specs, out_specs: Any, out_shape: Any, name: str) -> Any:
        rules = _LENGTH, segments and specs.segments
        return pl.pallas_call(
            partial(kernel, launch=launch),
            grid=specs.grid,
            in_specs=[specs.queries, specs.keys, specs.keys, *rules, specs.queries]
            + [specs.rows] * 2,
            out_specs=out_specs,
            out_shape=out_shape,
            compiler_params=_compiler_params(q.shape[-1]),
            interpret=launch.interpret,
            name=f"flash_attention_gradient_of_{name}",
        )(*inputs)

    d_q, d_k, d_v = (output(x, x.shape, x.dtype) for x in (q, k, v))
    d_q = call(_queries_kernel, by_queries, by_queries.queries, d_q, "queries")
    return d_q, *call(_keys_kernel, by_keys, (by_keys.keys,) * 2, (d_k, d_v), "keys")


def _queries_kernel(
    q_ref, k_ref, v_ref, length_ref, segment_refs, d_o_ref, lse_ref, delta_ref, d_q_ref, *, launch
):
    blocks, i = launch.backward, pl.program_id(0)
    q, d_o, length = q_ref[...], d_o_ref[...], length_ref[0]
    lse, delta = lse_ref[...][:, None], delta_ref[...][:, None]

    def step(j, d_q):
        keys = pl.ds(j * blocks.keys, blocks.keys)
        first, k = (i * blocks.queries, j * blocks.keys), k_ref[keys, :]
        segments = segment_refs and (segment_refs[0][...][:, None], segment_refs[1][keys][None, :])
        s = product(q, k, (1, 1)) * launch.scale
        p = jnp.exp(flash.hide(s, first, length, launch.causal, segments, key_axis=1) - lse)
        d_s = p * (product(d_o, v_ref[keys, :], (1, 1)) - delta)
        return d_q + product(d_s.astype(k.dtype), k, (1, 0))

    end = flash.end_of_keys(i, length, launch.causal, blocks)
    d_q = lax.fori_loop(0, end, step, jnp.zeros(q.shape, jnp.float32))
    d_q_ref[...] = (d_q * launch.scale).astype(d_q_ref.dtype)


def _keys_kernel(
    q_ref,
    k_ref,
    v_ref,
    length_ref,
    segment_refs,
    d_o_ref,
    lse_ref,
    delta_ref,
    d_k_ref,
    d_v_ref,
    *,
    launch,
):
    blocks, j = launch.backward, pl.program_id(0)
    k, v, length = k_ref[...], v_ref[...], length_ref[0]
    num_queries, group, _ = q_ref.shape

    def step(head, i, sums):
        queries = pl.ds(i * blocks.queries, blocks.queries)
        first = i * blocks.queries, j * blocks.keys
        q, d_o = q_ref[queries, head, :], d_o_ref[queries, head, :]
        lse, delta = lse_ref[head, queries][None, :], delta_ref[head, queries][None, :]
        numbers = segment_refs and (
            segment_refs[0][queries][None, :],
            segment_refs[1][...][:, None],
        )
        s = product(k, q, (1, 1)) * launch.scale  # Sᵀ
        p = jnp.exp(flash.hide(s, first, length, launch.causal, numbers, key_axis=0) - lse)
        d_s = p * (product(v, d_o, (1, 1)) - delta)
        d_k = sums[0] + product(d_s.astype(q.dtype), q, (1, 0))
        return d_k, sums[1] + product(p.astype(d_o.dtype), d_o, (1, 0))

    end = num_queries // blocks.queries
    start = flash.start_of_queries(j, launch.causal, blocks)
    # Typed, as Triton's lowering in JAX 0.10 takes the choice of two Python numbers for a boolean.
    start = jnp.where(j * blocks.keys < length, start, jnp.int32(end))

    def over_queries(head, sums):
        return lax.fori_loop(start, end, partial(step, head), sums)

    zeros = jnp.zeros(k.shape, jnp.float32)
    d_k, d_v = lax.fori_loop(0, group, over_queries, (zeros, zeros))
    d_k_ref[...] = (d_k * launch.scale).astype(d_k_ref.dtype)
    d_v_ref[...] = d_v.astype(d_v_ref.dtype)


_attend = flash.with_backward(_forward, _backward)
