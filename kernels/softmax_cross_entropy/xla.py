"""Cross-entropy over tiles of the vocabulary, for XLA; `tiles.py` has the equations."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.dense.xla import dense
from kernels.softmax_cross_entropy import tiles
from kernels.softmax_cross_entropy.tiles import Form, Passes, Start
from zoo.functional.cross_entropy import softmax_cross_entropy

TILE = 2048  # logits of a row that exist at a time: 1,024 rows of them are 8 MB


def linear_cross_entropy(
    x: Float[Array, "*B D"],
    kernel: Float[Array, "D V"],
    targets: Int[Array, "*B"],
    bias: Float[Array, " V"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, "*B"]:
    """`zoo.functional.cross_entropy.linear_cross_entropy`; differentiable backwards.

    Its gradients are too, though the logits of all tiles are kept then.
    """
    vocab = kernel.shape[1]
    if vocab <= TILE:  # one tile: nothing is won by computing it again
        return softmax_cross_entropy(dense(x, kernel, bias), targets, label_smoothing)
    return tiles.losses(x, kernel, bias, targets, PASSES, Form(label_smoothing, vocab, TILE))


def _statistics(x: Array, kernel: Array, bias: Array, targets: Array, form: Form):
    def visit(carry, start: Start, size: int):
        largest, total, of_target, of_all = carry
        z = _logits(x, tiles.tile(kernel, start, size), tiles.tile(bias, start, size))
        now = jnp.maximum(largest, z.max(-1))
        total = total * jnp.exp(largest - now) + jnp.exp(z - now[:, None]).sum(-1)
        place = jnp.clip(targets - start, 0, size - 1)[:, None]
        here = (start <= targets) & (targets < start + size)
        of_target = jnp.where(here, jnp.take_along_axis(z, place, axis=1)[:, 0], of_target)
        return now, total, of_target, of_all + z.sum(-1)

    zeros = jnp.zeros_like(x[:, 0], jnp.float32)
    start = jnp.full_like(zeros, tiles.LOWEST), zeros, zeros, zeros
    largest, total, of_target, of_all = tiles.over_tiles(visit, start, form)
    return largest + jnp.log(total), of_target, of_all


def _gradient(
    x: Array,
    kernel: Array,
    bias: Array,
    targets: Array,
    log_normalizer: Array,
    d_losses: Array,
    form: Form,
) -> Array:
    z = _logits(x, kernel, bias)
    columns = log_normalizer[:, None], d_losses[:, None]
    dz = tiles.gradient_of_logits(z, _is_target(z, targets), *columns, form)
    return dz.astype(jnp.result_type(x, kernel))


def _logits(x: Array, kernel: Array, bias: Array) -> Array:
    return jnp.matmul(x, kernel, preferred_element_type=jnp.float32) + bias.astype(jnp.float32)


def _is_target(z: Array, targets: Array) -> Array:
    return jnp.arange(z.shape[1]) == targets[:, None]


PASSES = Passes(_statistics, _gradient, turn_once=True)  # on a CPU it would take twice as long
