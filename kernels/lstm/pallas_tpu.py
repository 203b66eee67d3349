"""LSTM for TPUs, in Pallas through Mosaic: the recurrent weights stay in the fast memory.

A step needs all of W_h. Here one kernel goes through the whole sequence, so that W_h is read from
memory once. The grid is tiles of the batch by chunks of steps, one chunk after the other; while one
is computed the next is copied. h and c stay where they are from chunk to chunk. What moves is 4H
numbers a step in, and H out. A step goes over h in tiles of columns, each with its four gates.

For the backward pass the kernel also leaves c before each step and the sums of the gates, which are
written over a. They have the type of the inputs, as in the reference, so that the gates come out
again as they were. The backward kernel goes through the same chunks the other way, holds W_hᵀ, and
writes ȧ over the sums. `recurrence.py` has the equations and all that is outside of the loops.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu
from jaxtyping import Array, Bool, Float

from kernels.lstm import recurrence
from kernels.lstm.recurrence import Form, Passes, State
from kernels.product import product
from kernels.varying import output

LANES, SUBLANES = 128, 16  # a tile of bfloat16; those of float32 have 8 sublanes
WEIGHT_BYTES = 2**23  # of W_h: half of the fast memory of a TPU v4, which has the least of all
BLOCK_BYTES = 2**21  # of the chunks of all arrays; each is there twice, one is copied meanwhile
TILE = 256  # columns of h at a time, where they divide H
MAX_ROWS = 64  # of a tile of the batch


def lstm(
    x: Float[Array, "B T D"],
    h0: Float[Array, "B H"],
    c0: Float[Array, "B H"],
    w_x: Float[Array, "D 4*H"],
    w_h: Float[Array, "H 4*H"],
    b: Float[Array, " 4*H"],
    *,
    mask: Bool[Array, "B T"] | None = None,
    reverse: bool = False,
    interpret: bool = False,
) -> tuple[Float[Array, "B T H"], tuple[Float[Array, "B H"], Float[Array, "B H"]]]:
    """`zoo.functional.recurrent.lstm`; differentiable once, backwards.

    Args:
        interpret: run the same kernels as XLA programs, on any platform.

    Raises:
        NotImplementedError: x and the weights are not all float32 or all bfloat16, the state is not
            float32, or W_h is too large for the fast memory.
    """
    recurrence.check(x, h0, c0, w_x, w_h, b)
    dim = _whole(h0.shape[-1], LANES)
    if (size := 4 * dim * dim * w_h.dtype.itemsize) > WEIGHT_BYTES:
        raise NotImplementedError(
            f"H = {h0.shape[-1]} makes W_h {size} bytes in {w_h.dtype}, and {WEIGHT_BYTES} fit "
            "into the fast memory of a TPU; use bfloat16, or zoo.functional.recurrent.lstm"
        )
    blocks = _rows(len(h0)), LANES
    form = Form(reverse, interpret)
    return recurrence.padded(x, (h0, c0), (w_x, w_h, b), mask, blocks, form, PASSES)


def _whole(size: int, unit: int) -> int:
    return pl.cdiv(size, unit) * unit


def _rows(batch: int) -> int:
    """Of the batch's tiles, which are of equal size, so that little is added to fill the last."""
    tiles = max(1, pl.cdiv(batch, MAX_ROWS))
    return max(SUBLANES, _whole(pl.cdiv(batch, tiles), SUBLANES))


class _Chunks(NamedTuple):
    """How a sequence is cut, and in which order its parts come."""

    steps: int  # T
    length: int
    from_the_end: bool

    @property
    def number(self) -> int:
        return pl.cdiv(self.steps, self.length)

    def place(self, j: Any) -> Any:
        """Of the chunk that is the j-th to come."""
        return self.number - 1 - j if self.from_the_end else j

    def for_each_step(self, visit: Callable[[Any], None]) -> None:
        """`visit` every step of the present chunk; the last in the sequence may have fewer."""
        here = self.steps - self.place(pl.program_id(1)) * self.length
        number = jnp.minimum(here, self.length)

        def step(i, _):
            visit(number - 1 - i if self.from_the_end else i)

        lax.fori_loop(0, number, step, None)


class _Plan(NamedTuple):
    """The grid of a kernel and how it sees the arrays."""

    grid: tuple[int, int]
    chunks: _Chunks
    gates: pl.BlockSpec  # of a, the sums and ȧ, [T, B, 4H]
    sequence: pl.BlockSpec  # [T, B, H]
    state: pl.BlockSpec  # [B, H]
    mask: pl.BlockSpec


def _plan(a: Array, from_the_end: bool) -> _Plan:
    steps, batch, width = a.shape
    dim, rows = width // 4, _rows(batch)
    # Of the gates in and out, of outputs or their gradients, and of c in float32.
    bytes_of_a_step = rows * dim * (9 * a.dtype.itemsize + 4)
    length = min(max(BLOCK_BYTES // bytes_of_a_step, 1), LANES, steps)  # a mask has it in lanes
    chunks = _Chunks(steps, length, from_the_end)

    def over_steps(width: int) -> pl.BlockSpec:
        return pl.BlockSpec((length, rows, width), lambda i, j: (chunks.place(j), i, 0))

    return _Plan(
        grid=(batch // rows, chunks.number),
        chunks=chunks,
        gates=over_steps(width),
        sequence=over_steps(dim),
        state=pl.BlockSpec((rows, dim), lambda i, j: (i, 0)),
        mask=pl.BlockSpec((None, rows, length), lambda i, j: (chunks.place(j), i, 0)),
    )


def _held(array: Array) -> pl.BlockSpec:
    """The whole array, once: it is not copied again."""
    return pl.BlockSpec(array.shape, lambda i, j: (0, 0), pipeline_mode=pl.Buffered(1))


def _in_chunks(mask: Array | None, chunks: _Chunks) -> Array | None:
    """`[T, B, 1] -> [chunks, B, steps of one]`: a column of its own would fill 128 lanes."""
    if mask is None:
        return None
    more = -chunks.steps % chunks.length
    mask = jnp.pad(mask[..., 0].astype(jnp.float32), [(0, more), (0, 0)])
    return jnp.swapaxes(mask.reshape(chunks.number, chunks.length, -1), 1, 2)


def _real(mask_ref, t, shape: tuple[int, ...]) -> Array | None:
    """Column t of a chunk's mask, for every lane of a block."""
    if mask_ref is None:
        return None
    mask = mask_ref[...]
    here = lax.broadcasted_iota(jnp.int32, mask.shape, 1) == t
    column = jnp.sum(jnp.where(here, mask, 0), axis=1, keepdims=True)
    return jnp.broadcast_to(column, shape) > 0


def _for_each_tile(dim: int, compute: Callable[[Any, list[Any]], None]) -> None:
    """`compute` every tile of columns, of h and of the four gates.

    Only a tile's sums are in registers at a time; those of a whole step, which come of one product,
    would be put down in as much memory as the weights take.
    """
    width = math.gcd(dim, TILE)

    def visit(j, _):
        def columns(start: int):
            return pl.ds(pl.multiple_of(start + j * width, width), width)

        compute(columns(0), [columns(gate * dim) for gate in range(4)])

    lax.fori_loop(0, dim // width, visit, None)


def _call(kernel: Any, name: str, plan: _Plan, form: Form, **options: Any) -> Any:
    return pl.pallas_call(
        partial(kernel, chunks=plan.chunks),
        grid=plan.grid,
        compiler_params=tpu.CompilerParams(dimension_semantics=(tpu.PARALLEL, tpu.ARBITRARY)),
        interpret=form.interpret,
        name=f"lstm_{name}",
        **options,
    )


@recurrence.guarded(6, 7)
def _forward(
    a: Array,
    h0: Array,
    c0: Array,
    w_h: Array,
    b: Array,
    mask: Array | None,
    form: Form,
    keep: bool,
):
    steps, batch, width = a.shape
    plan = _plan(a, form.reverse)
    h = output(a, (steps, batch, width // 4), a.dtype)
    state = output(a, h0.shape, jnp.float32)
    c_before = output(a, h.shape, jnp.float32)
    inputs = a, h0, c0, w_h, b[None], _in_chunks(mask, plan.chunks)
    of_kept = (plan.gates, plan.sequence) if keep else None
    h, h_last, c_last, kept = _call(
        _forward_kernel,
        "forward",
        plan,
        form,
        in_specs=[
            plan.gates,
            *[plan.state] * 2,
            _held(w_h),
            _held(inputs[4]),
            None if mask is None else plan.mask,
        ],
        out_specs=(plan.sequence, plan.state, plan.state, of_kept),
        out_shape=(h, state, state, (a, c_before) if keep else None),
        input_output_aliases={0: 3} if keep else {},
    )(*inputs)
    return h, (h_last, c_last), kept


def _forward_kernel(
    a_ref, h0_ref, c0_ref, w_ref, b_ref, mask_ref, y_ref, h_ref, c_ref, kept_refs, *, chunks
):
    @pl.when(pl.program_id(1) == 0)
    def start():
        h_ref[...] = h0_ref[...]
        c_ref[...] = c0_ref[...]

    def step(t):
        h_before = h_ref[...].astype(w_ref.dtype)

        def compute(own, gates):
            h, c = h_ref[:, own], c_ref[:, own]
            sums = [
                a_ref[t, :, gate].astype(jnp.float32)
                + b_ref[:, gate].astype(jnp.float32)
                + product(h_before, w_ref[:, gate], (1, 0))
                for gate in gates
            ]
            sums = [array.astype(a_ref.dtype) for array in sums]
            if kept_refs:
                sums_ref, c_before_ref = kept_refs
                for gate, array in zip(gates, sums, strict=True):
                    sums_ref[t, :, gate] = array
                c_before_ref[t, :, own] = c
            sums = [array.astype(jnp.float32) for array in sums]
            h_after, c_after = recurrence.step_forward(sums, c)
            real = _real(mask_ref, t, h.shape)
            if real is not None:
                h_after, c_after = jnp.where(real, h_after, h), jnp.where(real, c_after, c)
            h_ref[:, own], c_ref[:, own] = h_after, c_after
            y_ref[t, :, own] = h_after.astype(y_ref.dtype)

        _for_each_tile(h_ref.shape[1], compute)

    chunks.for_each_step(step)


@recurrence.guarded(5)
def _backward(
    d_outputs: Array, d_last: State, kept: State, w_h: Array, mask: Array | None, form: Form
):
    sums, c_before = kept
    plan = _plan(sums, not form.reverse)
    w_back = w_h.T  # turned once, not in every step
    state = output(sums, d_last[0].shape, jnp.float32)
    return _call(
        _backward_kernel,
        "backward",
        plan,
        form,
        in_specs=[
            plan.gates,
            *[plan.sequence] * 2,
            *[plan.state] * 2,
            _held(w_back),
            None if mask is None else plan.mask,
        ],
        out_specs=(plan.gates, plan.state, plan.state),
        out_shape=(sums, state, state),
        input_output_aliases={0: 0},
    )(sums, c_before, d_outputs, *d_last, w_back, _in_chunks(mask, plan.chunks))


def _backward_kernel(
    sums_ref,
    c_before_ref,
    dy_ref,
    dh_last_ref,
    dc_last_ref,
    w_ref,
    mask_ref,
    da_ref,
    dh_ref,
    dc_ref,
    *,
    chunks,
):
    @pl.when(pl.program_id(1) == 0)
    def start():
        dh_ref[...] = dh_last_ref[...]
        dc_ref[...] = dc_last_ref[...]

    dim = dh_ref.shape[1]

    def step(t):
        def compute(own, gates):
            dc_after, c = dc_ref[:, own], c_before_ref[t, :, own]
            sums = [sums_ref[t, :, gate].astype(jnp.float32) for gate in gates]
            dh = dh_ref[:, own] + dy_ref[t, :, own].astype(jnp.float32)
            da, dc = recurrence.step_backward(sums, c, dh, dc_after)
            real = _real(mask_ref, t, dc.shape)
            if real is not None:
                da, dc = [jnp.where(real, d, 0) for d in da], jnp.where(real, dc, dc_after)
            for gate, d in zip(gates, da, strict=True):
                da_ref[t, :, gate] = d.astype(da_ref.dtype)
            dc_ref[:, own] = dc

        def multiply(own, gates):
            dh = product(da_ref[t], w_ref[:, own], (1, 0))
            real = _real(mask_ref, t, dh.shape)
            dh_ref[:, own] = dh if real is None else jnp.where(real, dh, dh_ref[:, own])

        _for_each_tile(dim, compute)
        _for_each_tile(dim, multiply)

    chunks.for_each_step(step)


PASSES = Passes(_forward, _backward)
