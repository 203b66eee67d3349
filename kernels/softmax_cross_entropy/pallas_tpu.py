"""Cross-entropy over tiles of the vocabulary for TPUs, in Pallas; `tiles.py` has the equations.

Two kernels. The forward one goes over the blocks of the vocabulary for each block of rows, and
keeps the rows' statistics in the fast memory meanwhile. The other computes ż of a tile, from logits
that never leave the fast memory; the two products with it are XLA's.
"""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu
from jaxtyping import Array, Float, Int

from kernels.product import product
from kernels.softmax_cross_entropy import tiles
from kernels.softmax_cross_entropy.tiles import Form, Passes
from kernels.varying import output

TILE = 8192  # logits of a row whose gradient is in memory at a time
LANES, SUBLANES = 128, 16  # a tile of bfloat16; those of float32 have 8 sublanes
BLOCK_BYTES = 2**21  # of rows or of the kernel in fast memory, each twice: one is copied meanwhile
MAX_BYTES = LANES * 2**15  # of a block as narrow as the lanes


def linear_cross_entropy(
    x: Float[Array, "*B D"],
    kernel: Float[Array, "D V"],
    targets: Int[Array, "*B"],
    bias: Float[Array, " V"] | None = None,
    label_smoothing: float = 0.0,
    *,
    interpret: bool = False,
) -> Float[Array, "*B"]:
    """`zoo.functional.cross_entropy.linear_cross_entropy`; differentiable once, backwards.

    Args:
        interpret: run the same kernels as XLA programs, on any platform.

    Raises:
        NotImplementedError: x and kernel are not both float32 or both bfloat16, or too wide.
    """
    tiles.check(x, kernel)
    if (size := LANES * x.shape[-1] * x.dtype.itemsize) > MAX_BYTES:
        raise NotImplementedError(
            f"{LANES} columns of {x.shape[-1]} {x.dtype} take {size} bytes, and {MAX_BYTES} fit "
            "into the fast memory; use zoo.functional.cross_entropy.linear_cross_entropy"
        )
    form = Form(label_smoothing, kernel.shape[1], TILE, interpret)
    return tiles.losses(x, kernel, bias, targets, PASSES, form)


def _blocks(x: Array, kernel: Array) -> tuple[int, int]:
    """Rows and columns of a block of logits."""

    def fitting(size: int, unit: int, most: int) -> int:
        fits = BLOCK_BYTES // (x.shape[1] * x.dtype.itemsize) // unit * unit
        return min(max(fits, unit), most, pl.cdiv(size, unit) * unit)

    return fitting(len(x), SUBLANES, 256), fitting(kernel.shape[1], LANES, 512)


def _specs(x: Array, rows: int, columns: int):
    """Of x, of the kernel, of the bias as a row, and of one number a row."""
    dim = x.shape[1]
    return (
        pl.BlockSpec((rows, dim), lambda i, j: (i, 0)),
        pl.BlockSpec((dim, columns), lambda i, j: (0, j)),
        pl.BlockSpec((1, columns), lambda i, j: (0, j)),
        pl.BlockSpec((rows, 1), lambda i, j: (i, 0)),
    )


@tiles.guarded(4)
def _statistics(x: Array, kernel: Array, bias: Array, targets: Array, form: Form):
    rows, columns = _blocks(x, kernel)
    of_x, of_kernel, of_bias, column = _specs(x, rows, columns)
    number = output(x, (len(x), 1), jnp.float32)
    found = pl.pallas_call(
        partial(_statistics_kernel, vocab=form.vocab),
        grid=(pl.cdiv(len(x), rows), pl.cdiv(form.vocab, columns)),
        in_specs=[of_x, of_kernel, of_bias, column],
        out_specs=[column] * 3,
        out_shape=[number] * 3,
        scratch_shapes=[tpu.VMEM((rows, 1), jnp.float32)] * 2,
        compiler_params=tpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=form.interpret,
        name="cross_entropy_statistics",
    )(x, kernel, bias[None], targets[:, None])
    log_normalizer, of_target, of_all = (array[:, 0] for array in found)
    return log_normalizer, of_target, of_all


def _statistics_kernel(
    x_ref, kernel_ref, bias_ref, targets_ref, log_ref, target_ref, all_ref, m_ref, s_ref, *, vocab
):
    j = pl.program_id(1)

    @pl.when(j == 0)
    def start():
        m_ref[...] = jnp.full_like(m_ref, tiles.LOWEST)
        for ref in (s_ref, target_ref, all_ref):
            ref[...] = jnp.zeros_like(ref)

    z = _logits(x_ref, kernel_ref, bias_ref)
    column = j * z.shape[1] + lax.broadcasted_iota(jnp.int32, z.shape, 1)
    real = column < vocab
    m = m_ref[...]
    m_ref[...] = jnp.maximum(m, jnp.max(jnp.where(real, z, -jnp.inf), axis=1, keepdims=True))
    e = jnp.where(real, jnp.exp(z - m_ref[...]), 0)
    s_ref[...] = s_ref[...] * jnp.exp(m - m_ref[...]) + jnp.sum(e, axis=1, keepdims=True)
    target_ref[...] += _row_sum(jnp.where(column == targets_ref[...], z, 0))
    all_ref[...] += _row_sum(jnp.where(real, z, 0))

    @pl.when(j == pl.num_programs(1) - 1)
    def end():
        log_ref[...] = m_ref[...] + jnp.log(s_ref[...])


@tiles.guarded(6)
def _gradient(
    x: Array,
    kernel: Array,
    bias: Array,
    targets: Array,
    log_normalizer: Array,
    d_losses: Array,
    form: Form,
) -> Array:
    rows, columns = _blocks(x, kernel)
    of_x, of_kernel, of_bias, column = _specs(x, rows, columns)
    shape = len(x), kernel.shape[1]
    return pl.pallas_call(
        partial(_gradient_kernel, form=form),
        grid=(pl.cdiv(shape[0], rows), pl.cdiv(shape[1], columns)),
        in_specs=[of_x, of_kernel, of_bias, *[column] * 3],
        out_specs=pl.BlockSpec((rows, columns), lambda i, j: (i, j)),
        out_shape=output(x, shape, x.dtype),
        compiler_params=tpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        interpret=form.interpret,
        name="cross_entropy_gradient",
    )(x, kernel, bias[None], targets[:, None], log_normalizer[:, None], d_losses[:, None])


def _gradient_kernel(
    x_ref, kernel_ref, bias_ref, targets_ref, log_ref, d_losses_ref, dz_ref, *, form: Form
):
    z = _logits(x_ref, kernel_ref, bias_ref)
    column = pl.program_id(1) * z.shape[1] + lax.broadcasted_iota(jnp.int32, z.shape, 1)
    is_target = (column == targets_ref[...]).astype(jnp.float32)
    dz = tiles.gradient_of_logits(z, is_target, log_ref[...], d_losses_ref[...], form)
    dz_ref[...] = dz.astype(dz_ref.dtype)


def _logits(x_ref, kernel_ref, bias_ref) -> Array:
    return product(x_ref[...], kernel_ref[...], (1, 0)) + bias_ref[...].astype(jnp.float32)


def _row_sum(x: Array) -> Array:
    return jnp.sum(x, axis=1, keepdims=True)


PASSES = Passes(_statistics, _gradient)
