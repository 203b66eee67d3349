"""Flash attention for TPUs, in Pallas through Mosaic. `kernels.attention.flash` has the equations.

A TPU goes through a kernel's grid in order. Its innermost axes are the loop over the blocks that a
sum gathers over, which stays in scratch memory from one step to the next: for the forward pass and
Q̇ the blocks of keys; for K̇ and V̇ the query heads that a key/value head serves and their blocks of
queries. Steps that a rule hides whole compute nothing and copy nothing.

Scores are held transposed, keys by queries. What there is one of for each query (m, l, L, D) is
then a row of a register's 128 lanes; a column would take up 128 times the memory.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu
from jaxtyping import Array

from kernels.attention import flash
from kernels.attention.flash import Blocks, Launch, Segments, Specs
from kernels.product import product
from kernels.varying import output
from zoo.functional.attention import Bias, Keys, Mask, Queries, Visible

LANES = 128  # of a register; the sizes of the last axis of a block are multiples of it
# Side of a block of scores, which takes 1 MB in float32. The few that a step holds fit with all
# else into the fast memory that compilers allow a kernel, from v4 on and up to the widest heads.
LARGEST = 512


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

    JAX refuses `jax.jvp` of it, and second derivatives are refused: use the reference there. Under
    a mesh of several devices it must stand inside `jax.shard_map`.

    Args:
        interpret: run the same kernels as XLA programs, on any platform.

    Raises:
        NotImplementedError: a bias, a mask that is an array, heads wider than 256, a dtype other
            than float32 and bfloat16.
    """
    mask = flash.served(q, k, v, mask, bias)
    blocks = Blocks(queries=_block(q.shape[1]), keys=_block(k.shape[1]))
    launch = Launch(
        scale=q.shape[-1] ** -0.5,
        causal=mask.causal,
        forward=blocks,
        backward=blocks,
        interpret=interpret,
    )
    return flash.padded(_heads_first, q, k, v, mask, _whole_lanes(q.shape[-1]), launch)


def _block(size: int) -> int:
    """Blocks of equal size, so that little is added to fill the last."""
    num_blocks = max(1, pl.cdiv(size, LARGEST))
    return max(LANES, _whole_lanes(pl.cdiv(size, num_blocks)))


def _whole_lanes(size: int) -> int:
    return pl.cdiv(size, LANES) * LANES


def _heads_first(
    launch: Launch, q: Array, k: Array, v: Array, lengths: Array, segments: Segments
) -> Array:
    """Tokens and width become the last axes, which registers tile; so does a row of segments."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    segments = segments and (segments[0][:, None], segments[1][:, None])
    return jnp.swapaxes(_attend(launch, q, k, v, lengths, segments), 1, 2)


def _by_queries(q: Array, k: Array, blocks: Blocks, causal: bool) -> Specs:
    """Key blocks innermost: past the last that is needed the index stands still, nothing moves."""
    (*heads, num_queries, width), num_keys = q.shape, k.shape[2]
    group = q.shape[1] // k.shape[1]
    tile, row = (None, None, blocks.queries, width), (None, None, 1, blocks.queries)

    def key_block(b, i, j, lengths):
        end = flash.end_of_keys(i, lengths[b], causal, blocks)
        return jnp.minimum(j, jnp.maximum(end - 1, 0))

    def at_keys(b, n, i, j, lengths):
        return b, lax.div(n, group), key_block(b, i, j, lengths), 0

    def segments_at_keys(b, n, i, j, lengths):
        return b, 0, key_block(b, i, j, lengths)

    return Specs(
        grid=(*heads, num_queries // blocks.queries, num_keys // blocks.keys),
        queries=pl.BlockSpec(tile, lambda b, n, i, j, lengths: (b, n, i, 0)),
        rows=pl.BlockSpec(row, lambda b, n, i, j, lengths: (b, n, 0, i)),
        keys=pl.BlockSpec((None, None, blocks.keys, width), at_keys),
        segments=(
            pl.BlockSpec((None, 1, blocks.queries), lambda b, n, i, j, lengths: (b, 0, i)),
            pl.BlockSpec((None, 1, blocks.keys), segments_at_keys),
        ),
    )


def _by_keys(q: Array, k: Array, blocks: Blocks, causal: bool) -> Specs:
    """Query heads g of a group and their blocks innermost, the first of them skipped likewise."""
    (*heads, num_keys, width), num_blocks = k.shape, q.shape[2] // blocks.queries
    group = q.shape[1] // k.shape[1]
    tile, row = (None, None, blocks.queries, width), (None, None, 1, blocks.queries)

    def query_block(j, i):
        start = flash.start_of_queries(j, causal, blocks)
        return jnp.maximum(i, jnp.minimum(start, num_blocks - 1))

    def at_queries(b, n, j, g, i, lengths):
        return b, n * group + g, query_block(j, i), 0

    def rows_at_queries(b, n, j, g, i, lengths):
        return b, n * group + g, 0, query_block(j, i)

    def segments_at_queries(b, n, j, g, i, lengths):
        return b, 0, query_block(j, i)

    return Specs(
        grid=(*heads, num_keys // blocks.keys, group, num_blocks),
        queries=pl.BlockSpec(tile, at_queries),
        rows=pl.BlockSpec(row, rows_at_queries),
        keys=pl.BlockSpec(
            (None, None, blocks.keys, width), lambda b, n, j, g, i, lengths: (b, n, j, 0)
        ),
        segments=(
            pl.BlockSpec((None, 1, blocks.queries), segments_at_queries),
            pl.BlockSpec((None, 1, blocks.keys), lambda b, n, j, g, i, lengths: (b, 0, j)),
        ),
    )


def _call(
    kernel: Callable[..., None],
    name: str,
    launch: Launch,
    grid: tuple[int, ...],
    in_specs: Any,
    out_specs: Any,
    out_shape: Any,
    scratch: list[tuple[int, int]],
) -> Callable[..., Any]:
    """`pallas_call` with the lengths in scalar memory; only the first three axes have no order."""
    parallel, ordered = (tpu.PARALLEL,) * 3, (tpu.ARBITRARY,) * (len(grid) - 3)
    return pl.pallas_call(
        partial(kernel, launch=launch),
        grid_spec=tpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=grid,
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=[tpu.VMEM(shape, jnp.float32) for shape in scratch],
        ),
        out_shape=out_shape,
        compiler_params=tpu.CompilerParams(dimension_semantics=parallel + ordered),
        interpret=launch.interpret,
        name=f"flash_attention_{name}",
    )


def _forward(
    launch: Launch, q: Array, k: Array, v: Array, lengths: Array, segments: Segments
) -> tuple[Array, Array]:
    (*heads, num_queries, width), blocks = q.shape, launch.forward
    specs = _by_queries(q, k, blocks, launch.causal)
    lse = output(q, (*heads, 1, num_queries), jnp.float32)
    return _call(
        _forward_kernel,
        "forward",
        launch,
        specs.grid,
        in_specs=[specs.queries, specs.keys, specs.keys, segments and specs.segments],
        out_specs=(specs.queries, specs.rows),
        out_shape=(output(q, q.shape, q.dtype), lse),
        scratch=[(width, blocks.queries), (1, blocks.queries), (1, blocks.queries)],
    )(lengths, q, k, v, segments)


def _scores(q, k, first, length, segment_refs, launch: Launch) -> Array:
    """Sᵀ of a block."""
    segments = segment_refs and (segment_refs[0][...], segment_refs[1][...].T)
    s = product(k, q, (1, 1)) * launch.scale
    return flash.hide(s, first, length, launch.causal, segments, key_axis=0)


def _forward_kernel(
    lengths_ref,
    q_ref,
    k_ref,
    v_ref,
    segment_refs,
    o_ref,
    lse_ref,
    a_ref,
    m_ref,
    total_ref,
    *,
    launch,
):
    blocks, i, j = launch.forward, pl.program_id(2), pl.program_id(3)
    length = lengths_ref[pl.program_id(0)]

    @pl.when(j == 0)
    def start():
        a_ref[...] = jnp.zeros_like(a_ref)
        m_ref[...] = jnp.full_like(m_ref, flash.LOWEST)
        total_ref[...] = jnp.zeros_like(total_ref)

    @pl.when(j < flash.end_of_keys(i, length, launch.causal, blocks))
    def step():
        first, v = (i * blocks.queries, j * blocks.keys), v_ref[...]
        s = _scores(q_ref[...], k_ref[...], first, length, segment_refs, launch)
        m = m_ref[...]
        m_after = jnp.maximum(m, jnp.max(s, axis=0, keepdims=True))
        p = jnp.exp(s - m_after)
        shrink = jnp.exp(m - m_after)
        a_ref[...] = a_ref[...] * shrink + product(v, p.astype(v.dtype), (0, 0))
        m_ref[...] = m_after
        total_ref[...] = total_ref[...] * shrink + jnp.sum(p, axis=0, keepdims=True)

    @pl.when(j == pl.num_programs(3) - 1)
    def end():
        total = jnp.maximum(total_ref[...], flash.TINY)
        o_ref[...] = (a_ref[...] / total).T.astype(o_ref.dtype)
        lse_ref[...] = m_ref[...] + jnp.log(total)


def _backward(launch: Launch, q, k, v, lengths, segments, d_o, lse, delta) -> tuple[Array, ...]:
    blocks, width = launch.backward, q.shape[-1]
    inputs = lengths, q, k, v, segments, d_o, lse, delta[:, :, None]
    d_q, d_k, d_v = (output(x, x.shape, x.dtype) for x in (q, k, v))

    def call(kernel: Any, name: str, specs: Specs, *options: Any) -> Any:
        rules_and_rest = [segments and specs.segments, specs.queries, specs.rows, specs.rows]
        in_specs = [specs.queries, specs.keys, specs.keys, *rules_and_rest]
        name = f"gradient_of_{name}"
        return _call(kernel, name, launch, specs.grid, in_specs, *options)(*inputs)

    specs = _by_queries(q, k, blocks, launch.causal)
    scratch = [(width, blocks.queries)]
    d_q = call(_queries_kernel, "queries", specs, specs.queries, d_q, scratch)
    specs = _by_keys(q, k, blocks, launch.causal)
    scratch = [(blocks.keys, width)] * 2
    return d_q, *call(_keys_kernel, "keys", specs, (specs.keys,) * 2, (d_k, d_v), scratch)


def _queries_kernel(
    lengths_ref,
    q_ref,
    k_ref,
    v_ref,
    segment_refs,
    d_o_ref,
    lse_ref,
    delta_ref,
    d_q_ref,
    sum_ref,
    *,
    launch,
):
    blocks, i, j = launch.backward, pl.program_id(2), pl.program_id(3)
    length = lengths_ref[pl.program_id(0)]

    @pl.when(j == 0)
    def start():
        sum_ref[...] = jnp.zeros_like(sum_ref)

    @pl.when(j < flash.end_of_keys(i, length, launch.causal, blocks))
    def step():
        first, k = (i * blocks.queries, j * blocks.keys), k_ref[...]
        s = _scores(q_ref[...], k, first, length, segment_refs, launch)
        p = jnp.exp(s - lse_ref[...])
        d_s = p * (product(v_ref[...], d_o_ref[...], (1, 1)) - delta_ref[...])
        sum_ref[...] += product(k, d_s.astype(k.dtype), (0, 0))

    @pl.when(j == pl.num_programs(3) - 1)
    def end():
        d_q_ref[...] = (sum_ref[...] * launch.scale).T.astype(d_q_ref.dtype)


def _keys_kernel(
    lengths_ref,
    q_ref,
    k_ref,
    v_ref,
    segment_refs,
    d_o_ref,
    lse_ref,
    delta_ref,
    d_k_ref,
    d_v_ref,
    sum_k_ref,
    sum_v_ref,
    *,
    launch,
):
    blocks, j, head, i = launch.backward, pl.program_id(2), pl.program_id(3), pl.program_id(4)
    length = lengths_ref[pl.program_id(0)]

    @pl.when((head == 0) & (i == 0))
    def start():
        sum_k_ref[...] = jnp.zeros_like(sum_k_ref)
        sum_v_ref[...] = jnp.zeros_like(sum_v_ref)

    visible = i >= flash.start_of_queries(j, launch.causal, blocks)

    @pl.when(visible & (j * blocks.keys < length))
    def step():
        first, q, d_o = (i * blocks.queries, j * blocks.keys), q_ref[...], d_o_ref[...]
        s = _scores(q, k_ref[...], first, length, segment_refs, launch)
        p = jnp.exp(s - lse_ref[...])
        d_s = p * (product(v_ref[...], d_o, (1, 1)) - delta_ref[...])
        sum_k_ref[...] += product(d_s.astype(q.dtype), q, (1, 0))
        sum_v_ref[...] += product(p.astype(d_o.dtype), d_o, (1, 0))

    @pl.when((head == pl.num_programs(3) - 1) & (i == pl.num_programs(4) - 1))
    def end():
        d_k_ref[...] = (sum_k_ref[...] * launch.scale).astype(d_k_ref.dtype)
        d_v_ref[...] = sum_v_ref[...].astype(d_v_ref.dtype)


_attend = flash.with_backward(_forward, _backward)
