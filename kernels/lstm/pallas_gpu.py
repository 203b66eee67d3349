"""LSTM for NVIDIA GPUs, in Pallas through Triton: one kernel goes through the whole sequence.

A program takes a few rows of the batch through all steps, so that none waits for another.

What is on the chip: while H is at most 64 in float32 or 128 in bfloat16, everything. W_h is read
once and stays in shared memory, h and c stay in registers. A larger W_h stays nowhere: in each step
every program reads all of it, in tiles, from the second-level cache, and that decides how long a
step takes. A program then goes over h in tiles of columns, each with its four gates. They pass h, c
and their gradients to the next step through arrays, which are small enough for the caches; after
each round over the tiles a barrier stands between who wrote and who reads. Products of float32 are
exact, and so do without tensor cores.

For the backward pass the kernel also leaves c before each step and the sums of the gates, which are
written over a. They have the type of the inputs, as in the reference, so that the gates come out
again as they were. The backward kernel reads W_h likewise, and writes ȧ over the sums.
`recurrence.py` has the equations and all that is outside of the loops.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float

from kernels.lstm import recurrence
from kernels.lstm.recurrence import Form, Passes, State
from kernels.product import product
from kernels.varying import output

ROWS = 16  # of the batch in a program, the fewest that a product of Triton takes
MAX_SIZE = 2**31  # Triton counts elements in 32 bits

Carry = TypeVar("Carry")


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
            float32, or there are too many gates to count.
    """
    recurrence.check(x, h0, c0, w_x, w_h, b)
    blocks = ROWS, _columns(h0.shape[-1], x.dtype)
    form = Form(reverse, interpret)
    return recurrence.padded(x, (h0, c0), (w_x, w_h, b), mask, blocks, form, PASSES)


def _columns(dim: int, dtype: Any) -> int:
    """Of a tile, powers of two as Triton wants them; all there are, if W_h can be held.

    By `ptxas -v` for sm_90a no thread spills with these. Held weights, and what is read ahead of
    its step, take at most 180 of the 227 KB of shared memory that a program may have on an H100.
    """
    held, streamed = (64, 32) if dtype == jnp.float32 else (128, 64)
    return max(ROWS, pl.next_power_of_2(dim)) if dim <= held else streamed


def _over_steps(array: Any) -> pl.BlockSpec:
    """A program's rows of `[T, B, ...]`."""
    return pl.BlockSpec((len(array), ROWS, array.shape[2]), lambda i: (0, i, 0))


def _of_state(array: Array) -> pl.BlockSpec:
    """A program's rows of `[B, H]`."""
    return pl.BlockSpec((ROWS, array.shape[1]), lambda i: (i, 0))


def _call(kernel: Any, name: str, form: Form, w_h: Array, batch: int, **options: Any) -> Any:
    columns = _columns(len(w_h), w_h.dtype)
    wide = columns * w_h.dtype.itemsize > 128
    return pl.pallas_call(
        partial(kernel, form=form),
        grid=(batch // ROWS,),
        # Named, for with none given JAX picks another compiler, which does not know the barrier.
        compiler_params=triton.CompilerParams(
            num_warps=8 if wide else 4, num_stages=2 if columns == len(w_h) else 3
        ),
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
    if a.size >= MAX_SIZE:
        raise NotImplementedError(
            f"the gates of all steps are {a.size} numbers, and Triton counts to {MAX_SIZE}; cut "
            "the batch, or use zoo.functional.recurrent.lstm"
        )
    y = output(a, (steps, batch, width // 4), a.dtype)
    c_before = output(a, y.shape, jnp.float32)
    # h before a step and after it, and which is which changes from step to step.
    h = jnp.stack([h0, h0])
    of_h = pl.BlockSpec((2, ROWS, h0.shape[1]), lambda i: (0, i, 0))
    of_mask, mask = _mask(mask)
    y, h, c, kept = _call(
        _forward_kernel,
        "forward",
        form,
        w_h,
        batch,
        in_specs=[
            _over_steps(a),
            of_h,
            _of_state(c0),
            pl.BlockSpec(w_h.shape, lambda i: (0, 0)),
            pl.BlockSpec(b.shape, lambda i: (0,)),
            of_mask,
        ],
        out_specs=(
            _over_steps(y),
            of_h,
            _of_state(c0),
            (_over_steps(a), _over_steps(c_before)) if keep else None,
        ),
        out_shape=(y, h, c0, (a, c_before) if keep else None),
        input_output_aliases={1: 1, 2: 2} | ({0: 3} if keep else {}),
    )(a, h, c0, w_h, b, mask)
    return y, (h[steps % 2], c), kept


def _mask(mask: Array | None) -> tuple[pl.BlockSpec | None, Array | None]:
    """How a program sees it, and `[T, B, 1] -> [T, B]`."""
    if mask is None:
        return None, None
    return pl.BlockSpec((len(mask), ROWS), lambda i: (0, i)), mask[..., 0].astype(jnp.int32)


def _real(mask_ref, t) -> Array:
    return (mask_ref[t] != 0)[:, None]


class _Place(NamedTuple):
    """Where a tile of columns lies."""

    own: Any  # in h
    gates: list[Any]  # in the sums, of each gate


class _Tiles(NamedTuple):
    """How h is cut."""

    dim: int  # H
    width: int

    @property
    def number(self) -> int:
        return self.dim // self.width

    def place(self, j: Any) -> _Place:
        def columns(start: int):
            return pl.ds(start + j * self.width, self.width)

        return _Place(columns(0), [columns(gate * self.dim) for gate in range(4)])

    def for_each(self, form: Form, compute: Callable[[_Place], None]) -> None:
        """`compute` every tile; after it all of the program may read what it wrote."""
        lax.fori_loop(0, self.number, lambda j, _: compute(self.place(j)), None)
        if not form.interpret:  # which does one thing after the other, and knows no barrier
            triton.debug_barrier()


def _tiles(w_ref) -> _Tiles:
    return _Tiles(w_ref.shape[0], _columns(w_ref.shape[0], w_ref.dtype))


def _over_time(
    steps: int, from_the_end: bool, step: Callable[[Any, Any, Carry], Carry], carry: Carry
) -> Carry:
    """`carry ← step(i, t, carry)`, where the i-th step is at place t."""

    def visit(i, carry):
        return step(i, steps - 1 - i if from_the_end else i, carry)

    return lax.fori_loop(0, steps, visit, carry)


def _forward_kernel(
    a_ref, h0_ref, c0_ref, w_ref, b_ref, mask_ref, y_ref, h_ref, c_ref, kept_refs, *, form: Form
):
    tiles, steps = _tiles(w_ref), len(a_ref)

    def compute(t, place: _Place, products: list[Array], h: Array, c: Array) -> State:
        """h and c of a tile after a step, from what h W_h adds to the sums."""
        sums = [
            a_ref[t, :, gate].astype(jnp.float32) + (p + b_ref[gate].astype(jnp.float32)[None])
            for gate, p in zip(place.gates, products, strict=True)
        ]
        sums = [s.astype(a_ref.dtype) for s in sums]
        if kept_refs:
            sums_ref, c_before_ref = kept_refs
            for gate, s in zip(place.gates, sums, strict=True):
                sums_ref[t, :, gate] = s
            c_before_ref[t, :, place.own] = c
        h_after, c_after = recurrence.step_forward([s.astype(jnp.float32) for s in sums], c)
        if mask_ref is not None:
            real = _real(mask_ref, t)
            h_after, c_after = jnp.where(real, h_after, h), jnp.where(real, c_after, c)
        y_ref[t, :, place.own] = h_after.astype(y_ref.dtype)
        return h_after, c_after

    def with_all_held():
        weights = [w_ref[:, gate] for gate in tiles.place(0).gates]

        def step(_, t, state):
            h, c = state
            products = [product(h.astype(w_ref.dtype), w, (1, 0)) for w in weights]
            return compute(t, tiles.place(0), products, h, c)

        start = h0_ref[0], c0_ref[...]
        h_ref[steps % 2], c_ref[...] = _over_time(steps, form.reverse, step, start)

    def by_tiles():
        def step(i, t, _):
            before, after = lax.rem(i, 2), lax.rem(i + 1, 2)

            def tile(place: _Place):
                def add(k, sums):
                    h = h_ref[before, :, tiles.place(k).own].astype(w_ref.dtype)
                    weights = [w_ref[tiles.place(k).own, gate] for gate in place.gates]
                    return [s + product(h, w, (1, 0)) for s, w in zip(sums, weights, strict=True)]

                zeros = [jnp.zeros((ROWS, tiles.width), jnp.float32)] * 4
                products = lax.fori_loop(0, tiles.number, add, zeros)
                h, c = h_ref[before, :, place.own], c_ref[:, place.own]
                h, c = compute(t, place, products, h, c)
                h_ref[after, :, place.own], c_ref[:, place.own] = h, c

            tiles.for_each(form, tile)

        _over_time(steps, form.reverse, step, None)

    # Never by tiles where there is one: Triton overlaps the steps of an innermost loop, and would
    # read h of the next step before this one has written it.
    with_all_held() if tiles.number == 1 else by_tiles()


@recurrence.guarded(5)
def _backward(
    d_outputs: Array, d_last: State, kept: State, w_h: Array, mask: Array | None, form: Form
):
    sums, c_before = kept
    of_mask, mask = _mask(mask)
    of_gates, of_sequence, of_state = _over_steps(sums), _over_steps(c_before), _of_state(d_last[0])
    return _call(
        _backward_kernel,
        "backward",
        form,
        w_h,
        sums.shape[1],
        in_specs=[
            of_gates,
            *[of_state] * 2,
            *[of_sequence] * 2,
            pl.BlockSpec(w_h.shape, lambda i: (0, 0)),
            of_mask,
        ],
        out_specs=(of_gates, of_state, of_state),
        out_shape=(sums, *d_last),
        input_output_aliases={0: 0, 1: 1, 2: 2},
    )(sums, *d_last, c_before, d_outputs, w_h, mask)


def _backward_kernel(
    sums_ref,
    dh_last_ref,
    dc_last_ref,
    c_before_ref,
    dy_ref,
    w_ref,
    mask_ref,
    da_ref,
    dh_ref,
    dc_ref,
    *,
    form: Form,
):
    tiles, steps = _tiles(w_ref), len(sums_ref)

    def compute(t, place: _Place, dh: Array, dc_after: Array) -> tuple[list[Array], Array]:
        """ȧ of a tile, and ċ before the step."""
        sums = [sums_ref[t, :, gate].astype(jnp.float32) for gate in place.gates]
        dh += dy_ref[t, :, place.own].astype(jnp.float32)
        da, dc = recurrence.step_backward(sums, c_before_ref[t, :, place.own], dh, dc_after)
        if mask_ref is not None:
            real = _real(mask_ref, t)
            da, dc = [jnp.where(real, d, 0) for d in da], jnp.where(real, dc, dc_after)
        da = [d.astype(da_ref.dtype) for d in da]
        for gate, d in zip(place.gates, da, strict=True):
            da_ref[t, :, gate] = d
        return da, dc

    def passed(t, products: Array, dh_after: Array) -> Array:
        """ḣ before a step, from ȧ W_hᵀ."""
        return products if mask_ref is None else jnp.where(_real(mask_ref, t), products, dh_after)

    def with_all_held():
        weights = [w_ref[:, gate] for gate in tiles.place(0).gates]

        def step(_, t, state):
            dh, dc = state
            da, dc = compute(t, tiles.place(0), dh, dc)
            parts = [product(d, w, (1, 1)) for d, w in zip(da, weights, strict=True)]
            return passed(t, sum(parts[1:], parts[0]), dh), dc

        last = dh_last_ref[...], dc_last_ref[...]
        dh_ref[...], dc_ref[...] = _over_time(steps, not form.reverse, step, last)

    def by_tiles():
        def step(_, t, __):
            def tile(place: _Place):
                dh, dc = dh_ref[:, place.own], dc_ref[:, place.own]
                dc_ref[:, place.own] = compute(t, place, dh, dc)[1]

            def multiply(place: _Place):
                def add(k, products):
                    for gate in tiles.place(k).gates:
                        products += product(da_ref[t, :, gate], w_ref[place.own, gate], (1, 1))
                    return products

                zeros = jnp.zeros((ROWS, tiles.width), jnp.float32)
                products = lax.fori_loop(0, tiles.number, add, zeros)
                dh_ref[:, place.own] = passed(t, products, dh_ref[:, place.own])

            tiles.for_each(form, tile)
            tiles.for_each(form, multiply)

        _over_time(steps, not form.reverse, step, None)

    with_all_held() if tiles.number == 1 else by_tiles()


PASSES = Passes(_forward, _backward)
