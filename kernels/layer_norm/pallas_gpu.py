"""Layer norm and rms norm for GPUs, in Pallas for Triton: each pass reads every array once.

A block is some rows with all their features, padded to a power of two as Triton wants it, and what
lies beyond the array is masked. The forward pass keeps nothing but x: a block's rows are in
registers when the backward pass has read them, so computing μ and ρ again costs no memory traffic.
The programs of the backward pass each take every so many blocks in turn, and leave one row of sums
for the gradients of scale and bias, which are then added. `rows.py` has the equations.
"""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from kernels.layer_norm.rows import (
    Form,
    Passes,
    check,
    guarded,
    input_gradient,
    normalized,
    row_mean,
    standardized,
)
from kernels.varying import output

BLOCK_SIZE = 4096  # numbers in a block, where a row is not longer
MAX_DIM = 16384  # 32 numbers of each array in a thread's registers
MAX_SIZE = 2**31  # Triton counts elements in 32 bits
MAX_PROGRAMS = 264  # of the backward pass: two for each multiprocessor of an H100


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None = None,
    bias: Float[Array, " D"] | None = None,
    *,
    epsilon: float = 1e-5,
    interpret: bool = False,
) -> Float[Array, "... D"]:
    """`zoo.functional.norm.layer_norm`; differentiable backwards, not by `jax.jvp`.

    Raises:
      NotImplementedError: x is neither float32 nor bfloat16, or it or its rows are too long.
    """
    check(x, MAX_DIM, "layer_norm for GPUs", MAX_SIZE)
    return normalized(x, scale, bias, Form(True, epsilon, interpret), PASSES)


def rms_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None = None,
    *,
    epsilon: float = 1e-6,
    interpret: bool = False,
) -> Float[Array, "... D"]:
    """`zoo.functional.norm.rms_norm`; differentiable backwards, not by `jax.jvp`.

    Raises:
      NotImplementedError: x is neither float32 nor bfloat16, or it or its rows are too long.
    """
    check(x, MAX_DIM, "rms_norm for GPUs", MAX_SIZE)
    return normalized(x, scale, None, Form(False, epsilon, interpret), PASSES)


@guarded(3)
def _forward(x: Array, scale: Array | None, bias: Array | None, form: Form):
    rows, dim = x.shape
    block = _block_shape(rows, dim)
    y = pl.pallas_call(
        partial(_forward_kernel, form=form, block=block),
        out_shape=output(x, x.shape, x.dtype),
        grid=(pl.cdiv(rows, block[0]),),
        compiler_params=_compiler_params(block),
        interpret=form.interpret,
        name="norm_forward",
    )(x, _or_full(scale, 1.0, dim), _or_full(bias, 0.0, dim))
    return y, ()


def _forward_kernel(x_ref, scale_ref, bias_ref, y_ref, *, form: Form, block: tuple[int, int]):
    dim = x_ref.shape[1]
    at, real = _place(pl.program_id(0), block, x_ref.shape)
    x_hat, _ = standardized(_load(x_ref, at, real), form, dim, real)
    column = jnp.arange(block[1])
    scale, bias = (_load(ref, column, column < dim) for ref in (scale_ref, bias_ref))
    y = x_hat * scale[None] + bias[None]
    triton.store(y_ref.at[at], y.astype(y_ref.dtype), mask=real)


@guarded(4)
def _backward(dy: Array, x: Array, scale: Array | None, kept: tuple[()], form: Form):
    rows, dim = x.shape
    block = _block_shape(rows, dim)
    programs = min(MAX_PROGRAMS, pl.cdiv(rows, block[0]))
    sums = output(x, (programs, dim), jnp.float32)
    dx, dscale, dbias = pl.pallas_call(
        partial(_backward_kernel, form=form, block=block),
        out_shape=(output(x, x.shape, x.dtype), sums, sums),
        grid=(programs,),
        compiler_params=_compiler_params(block),
        interpret=form.interpret,
        name="norm_backward",
    )(dy, x, _or_full(scale, 1.0, dim))
    return dx, jnp.sum(dscale, axis=0), jnp.sum(dbias, axis=0)


def _backward_kernel(
    dy_ref, x_ref, scale_ref, dx_ref, dscale_ref, dbias_ref, *, form: Form, block: tuple[int, int]
):
    (rows, dim), (programs, _) = x_ref.shape, dscale_ref.shape
    program, column = pl.program_id(0), jnp.arange(block[1])
    scale = _load(scale_ref, column, column < dim)[None]

    def take(turn, sums):
        dscale, dbias = sums
        at, real = _place(turn * programs + program, block, x_ref.shape)
        x_hat, rho = standardized(_load(x_ref, at, real), form, dim, real)
        dy = _load(dy_ref, at, real)
        dx = input_gradient(dy * scale, x_hat, rho, form, partial(row_mean, dim=dim))
        triton.store(dx_ref.at[at], dx.astype(dx_ref.dtype), mask=real)
        return dscale + jnp.sum(dy * x_hat, axis=0), dbias + jnp.sum(dy, axis=0)

    zeros = jnp.zeros(block[1], jnp.float32)
    turns = pl.cdiv(rows, block[0] * programs)
    dscale, dbias = lax.fori_loop(0, turns, take, (zeros, zeros))
    triton.store(dscale_ref.at[program, column], dscale, mask=column < dim)
    triton.store(dbias_ref.at[program, column], dbias, mask=column < dim)


def _block_shape(rows: int, dim: int) -> tuple[int, int]:
    width = pl.next_power_of_2(dim)
    return min(max(BLOCK_SIZE // width, 1), pl.next_power_of_2(rows)), width


def _compiler_params(block: tuple[int, int]) -> triton.CompilerParams:
    # Named, for with none given JAX picks another compiler, which does not know these loads.
    return triton.CompilerParams(num_warps=min(max(block[0] * block[1] // 1024, 1), 16))


def _place(index, block: tuple[int, int], shape: tuple[int, int]):
    """Rows and columns of block number `index`, and where they lie inside the array."""
    row = (index * block[0] + jnp.arange(block[0]))[:, None]
    column = jnp.arange(block[1])[None]
    return (row, column), (row < shape[0]) & (column < shape[1])


def _load(ref, at, mask: Array) -> Array:
    return triton.load(ref.at[at], mask=mask, other=0.0).astype(jnp.float32)


def _or_full(values: Array | None, default: float, dim: int) -> Array:
    return jnp.full((dim,), default, jnp.float32) if values is None else values


PASSES = Passes(_forward, _backward)
