"""Cross-entropy over tiles of the vocabulary for GPUs, in Pallas for Triton; `tiles.py` has the
equations.

Two kernels. The forward one has a program for a block of rows and a part of the vocabulary, which
leaves the statistics of that part; there are more parts than rows would give programs, and merging
them is a sum of few numbers. The other computes ż of a tile, from logits that never leave the
registers; the two products with it are XLA's.
"""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from kernels.product import product
from kernels.softmax_cross_entropy import tiles
from kernels.softmax_cross_entropy.tiles import Form, Passes
from kernels.varying import output

TILE = 8192  # logits of a row whose gradient is in memory at a time
PART = 4096  # columns of the vocabulary that a program of the forward pass goes over
ROWS, COLUMNS, DEPTH = 64, 128, 32  # of a block of logits, and features that are read at a time
MAX_SIZE = 2**31  # Triton counts elements in 32 bits


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
        NotImplementedError: x and kernel are not both float32 or both bfloat16, or too large.
    """
    tiles.check(x, kernel)
    if (size := max(x.size, kernel.size)) >= MAX_SIZE:
        raise NotImplementedError(
            f"an array has {size} elements, and Triton counts to {MAX_SIZE}; "
            "use zoo.functional.cross_entropy.linear_cross_entropy"
        )
    form = Form(label_smoothing, kernel.shape[1], TILE, interpret)
    return tiles.losses(x, kernel, bias, targets, PASSES, form)


@tiles.guarded(4)
def _statistics(x: Array, kernel: Array, bias: Array, targets: Array, form: Form):
    parts = pl.cdiv(form.vocab, PART)
    number = output(x, (parts, len(x)), jnp.float32)
    largest, total, of_target, of_all = pl.pallas_call(
        _statistics_kernel,
        grid=(pl.cdiv(len(x), ROWS), parts),
        out_shape=[number] * 4,
        compiler_params=_compiler_params(),
        interpret=form.interpret,
        name="cross_entropy_statistics",
    )(x, kernel, bias, targets)
    log_normalizer = logsumexp(largest, axis=0, b=total)
    return log_normalizer, jnp.sum(of_target, axis=0), jnp.sum(of_all, axis=0)


def _statistics_kernel(
    x_ref, kernel_ref, bias_ref, targets_ref, largest_ref, total_ref, target_ref, all_ref
):
    row, is_row = _place(pl.program_id(0), ROWS, x_ref.shape[0])
    part, vocab = pl.program_id(1), kernel_ref.shape[1]
    targets = triton.load(targets_ref.at[row], mask=is_row, other=-1)

    def take(j, carry):
        m, s, of_target, of_all = carry
        column, real = _place(part * (PART // COLUMNS) + j, COLUMNS, vocab)
        z = _logits(x_ref, kernel_ref, bias_ref, (row, is_row), (column, real))
        m_after = jnp.maximum(m, jnp.max(jnp.where(real[None], z, -jnp.inf), axis=1))
        e = jnp.where(real[None], jnp.exp(z - m_after[:, None]), 0)
        s = s * jnp.exp(m - m_after) + jnp.sum(e, axis=1)
        of_target += jnp.sum(jnp.where(column[None] == targets[:, None], z, 0), axis=1)
        return m_after, s, of_target, of_all + jnp.sum(jnp.where(real[None], z, 0), axis=1)

    zeros = jnp.zeros(ROWS, jnp.float32)
    blocks = pl.cdiv(jnp.minimum(PART, vocab - part * PART), COLUMNS)
    found = lax.fori_loop(0, blocks, take, (zeros + tiles.LOWEST, zeros, zeros, zeros))
    for ref, values in zip((largest_ref, total_ref, target_ref, all_ref), found, strict=True):
        triton.store(ref.at[part, row], values, mask=is_row)


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
    shape = len(x), kernel.shape[1]
    return pl.pallas_call(
        partial(_gradient_kernel, form=form),
        grid=(pl.cdiv(shape[0], ROWS), pl.cdiv(shape[1], COLUMNS)),
        out_shape=output(x, shape, x.dtype),
        compiler_params=_compiler_params(),
        interpret=form.interpret,
        name="cross_entropy_gradient",
    )(x, kernel, bias, targets, log_normalizer, d_losses)


def _gradient_kernel(
    x_ref, kernel_ref, bias_ref, targets_ref, log_ref, d_losses_ref, dz_ref, *, form: Form
):
    row, is_row = _place(pl.program_id(0), ROWS, x_ref.shape[0])
    column, is_column = _place(pl.program_id(1), COLUMNS, kernel_ref.shape[1])
    targets = triton.load(targets_ref.at[row], mask=is_row, other=-1)
    log_normalizer = triton.load(log_ref.at[row], mask=is_row, other=0.0)[:, None]
    d_losses = triton.load(d_losses_ref.at[row], mask=is_row, other=0.0)[:, None]
    z = _logits(x_ref, kernel_ref, bias_ref, (row, is_row), (column, is_column))
    is_target = (column[None] == targets[:, None]).astype(jnp.float32)
    dz = tiles.gradient_of_logits(z, is_target, log_normalizer, d_losses, form)
    place = dz_ref.at[row[:, None], column[None]]
    triton.store(place, dz.astype(dz_ref.dtype), mask=is_row[:, None] & is_column[None])


def _logits(x_ref, kernel_ref, bias_ref, rows, columns) -> Array:
    """Of a block; `rows` and `columns` are where it lies, and what of it is inside the arrays."""
    (row, is_row), (column, is_column) = rows, columns

    def add(k, z):
        feature, is_feature = _place(k, DEPTH, x_ref.shape[1])
        x_at, w_at = (
            x_ref.at[row[:, None], feature[None]],
            kernel_ref.at[feature[:, None], column[None]],
        )
        x = triton.load(x_at, mask=is_row[:, None] & is_feature[None], other=0.0)
        w = triton.load(w_at, mask=is_feature[:, None] & is_column[None], other=0.0)
        return z + product(x, w, (1, 0))

    bias = triton.load(bias_ref.at[column], mask=is_column, other=0.0).astype(jnp.float32)
    z = lax.fori_loop(0, pl.cdiv(x_ref.shape[1], DEPTH), add, jnp.zeros((ROWS, COLUMNS)))
    return z + bias[None]


def _place(index, size: int, end: int) -> tuple[Array, Array]:
    """The numbers of block `index`, and which of them lie before the end."""
    number = index * size + jnp.arange(size)
    return number, number < end


def _compiler_params():
    # Named, for with none given JAX picks another compiler, which does not know these loads.
    return triton.CompilerParams(num_warps=4, num_stages=2)


PASSES = Passes(_statistics, _gradient)
