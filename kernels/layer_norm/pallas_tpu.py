"""Layer norm and rms norm for TPUs, in Pallas: each pass reads every array once from memory.

A block is some rows with all their features, padded to a multiple of 128, the lanes of the vector
unit; what lies beyond the array is not defined there and is masked. The forward pass keeps nothing
but x: μ and ρ are computed again where x is read anyway, and one number a row would fill 128 lanes
in memory. Blocks come one after the other, so the gradients of scale and bias are sums in an output
that stays in the fast memory until the last of them. `rows.py` has the equations.
"""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu
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
    where,
)
from kernels.varying import output

LANES, SUBLANES = 128, 16  # a tile of bfloat16; those of float32 have 8 sublanes
# Float32 numbers in a block: the backward pass holds three blocks twice over, for one is copied
# while another is computed, and some intermediate ones in the 16 MB that the compiler allots.
BLOCK_SIZE = 2**17
MAX_DIM = 2 * BLOCK_SIZE // SUBLANES


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
      NotImplementedError: x is neither float32 nor bfloat16, or its rows are too long.
    """
    check(x, MAX_DIM, "layer_norm for TPUs")
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
      NotImplementedError: x is neither float32 nor bfloat16, or its rows are too long.
    """
    check(x, MAX_DIM, "rms_norm for TPUs")
    return normalized(x, scale, None, Form(False, epsilon, interpret), PASSES)


@guarded(3)
def _forward(x: Array, scale: Array | None, bias: Array | None, form: Form):
    rows, dim = x.shape
    shape = _block_shape(rows, dim)
    block, row = _blocks(shape)
    y = pl.pallas_call(
        partial(_forward_kernel, form=form, shape=(rows, dim)),
        out_shape=output(x, x.shape, x.dtype),
        grid=(pl.cdiv(rows, shape[0]),),
        in_specs=[block, row, row],
        out_specs=block,
        compiler_params=tpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=form.interpret,
        name="norm_forward",
    )(x, _row(scale, 1.0, dim), _row(bias, 0.0, dim))
    return y, ()


def _forward_kernel(x_ref, scale_ref, bias_ref, y_ref, *, form: Form, shape: tuple[int, int]):
    real = _real(x_ref.shape, shape)
    x_hat, _ = standardized(where(real, x_ref[...].astype(jnp.float32)), form, shape[1], real)
    y_ref[...] = (x_hat * scale_ref[...] + bias_ref[...]).astype(y_ref.dtype)


@guarded(4)
def _backward(dy: Array, x: Array, scale: Array | None, kept: tuple[()], form: Form):
    rows, dim = x.shape
    shape = _block_shape(rows, dim)
    block, row = _blocks(shape)
    sums = output(x, (1, dim), jnp.float32)
    dx, dscale, dbias = pl.pallas_call(
        partial(_backward_kernel, form=form, shape=(rows, dim)),
        out_shape=(output(x, x.shape, x.dtype), sums, sums),
        grid=(pl.cdiv(rows, shape[0]),),
        in_specs=[block, block, row],
        out_specs=(block, row, row),
        compiler_params=tpu.CompilerParams(dimension_semantics=("arbitrary",)),  # one by one
        interpret=form.interpret,
        name="norm_backward",
    )(dy, x, _row(scale, 1.0, dim))
    return dx, dscale[0], dbias[0]


def _backward_kernel(
    dy_ref, x_ref, scale_ref, dx_ref, dscale_ref, dbias_ref, *, form: Form, shape: tuple[int, int]
):
    @pl.when(pl.program_id(0) == 0)
    def _():
        dscale_ref[...] = jnp.zeros_like(dscale_ref)
        dbias_ref[...] = jnp.zeros_like(dbias_ref)

    real, dim = _real(x_ref.shape, shape), shape[1]
    x_hat, rho = standardized(where(real, x_ref[...].astype(jnp.float32)), form, dim, real)
    dy = where(real, dy_ref[...].astype(jnp.float32))
    g = where(real, dy * scale_ref[...])
    dx = input_gradient(g, x_hat, rho, form, partial(row_mean, dim=dim))
    dx_ref[...] = dx.astype(dx_ref.dtype)
    dscale_ref[...] += jnp.sum(dy * x_hat, axis=0, keepdims=True)
    dbias_ref[...] += jnp.sum(dy, axis=0, keepdims=True)


def _block_shape(rows: int, dim: int) -> tuple[int, int]:
    width = pl.cdiv(dim, LANES) * LANES
    height = min(max(BLOCK_SIZE // width, SUBLANES), rows)
    return pl.cdiv(height, SUBLANES) * SUBLANES, width


def _blocks(shape: tuple[int, int]) -> tuple[pl.BlockSpec, pl.BlockSpec]:
    """Of an array like x, one after the other, and of one with a single row, such as scale."""
    return pl.BlockSpec(shape, lambda i: (i, 0)), pl.BlockSpec((1, shape[1]), lambda i: (0, 0))


def _row(values: Array | None, default: float, dim: int) -> Array:
    """`[1, dim]` in float32, as a block wants two axes."""
    if values is None:
        return jnp.full((1, dim), default, jnp.float32)
    return values.astype(jnp.float32)[None]


def _real(block: tuple[int, int], shape: tuple[int, int]) -> Array | None:
    """Where this block lies inside the array; None where blocks tile it exactly."""
    if not (shape[0] % block[0] or shape[1] % block[1]):
        return None
    row = pl.program_id(0) * block[0] + lax.broadcasted_iota(jnp.int32, block, 0)
    return (row < shape[0]) & (lax.broadcasted_iota(jnp.int32, block, 1) < shape[1])


PASSES = Passes(_forward, _backward)
