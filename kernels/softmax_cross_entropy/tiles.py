"""What the back ends of cross-entropy share: a vocabulary in tiles, and the backward pass.

A pass over the vocabulary keeps, of each row, the largest logit m so far, s = Σ_v exp(z_v - m), the
target's logit and the sum of all (Milakov and Gimelshein 2018, "Online normalizer calculation for
softmax", algorithm 3):

    m' = max(m, max_v z_v),   s' = s exp(m - m') + Σ_v exp(z_v - m'),   log Z = m + log s

m begins at the lowest finite number: a whole tile may be -inf, where a bias hides its words.
The backward pass computes the logits of a tile again, which costs one product more than keeping
them would, and reads none of V numbers a row from memory:

    ż_v = L̇ (exp(z_v - log Z) - (1 - α) 1[v = target] - α / V),   ẋ = Σ_v ż_v W_vᵀ,   Ẇ_v = xᵀ ż_v

A dot over a letter is the gradient with respect to it; α is the label smoothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kernels.derivative import differentiable_no_more
from kernels.varying import alike

# For the passes of a back end in Pallas, given which of their arguments are no arrays.
guarded = partial(
    differentiable_no_more,
    "the cross-entropy kernel",
    "kernels.softmax_cross_entropy.xla or zoo.functional.cross_entropy",
)
LOWEST = float(jnp.finfo(jnp.float32).min)  # m of no logit: finite, as -inf - -inf is no number
Carry = TypeVar("Carry")
Start = int | Array  # where a tile begins


@dataclass(frozen=True)
class Form:
    """What a pass must know when it is compiled."""

    label_smoothing: float  # α
    vocab: int  # V
    tile: int  # logits of a row that exist at a time in the backward pass
    interpret: bool = False


@dataclass(frozen=True)
class Passes:
    """What differs between the back ends; rows are flat, [R, D]."""

    # (x, kernel, bias, targets, form) -> log Z, the target's logit and the sum of all logits, [R]
    statistics: Callable[..., tuple[Array, Array, Array]]
    # (x, tile of kernel, of bias, targets counted from its start, log Z, L̇, form) -> ż of the tile
    gradient: Callable[..., Array]
    # whether xᵀ is kept in memory, because a product that turns x as it reads it is slow there
    turn_once: bool = False


def check(x: Array, kernel: Array) -> None:
    """Raises NotImplementedError for numbers that the Pallas kernels do not take."""
    if x.dtype != kernel.dtype or x.dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(
            f"x is {x.dtype} and the kernel {kernel.dtype}, and neither both float32 nor both "
            "bfloat16; cast them"
        )


def losses(
    x: Array,
    kernel: Array,
    bias: Array | None,
    targets: Array,
    passes: Passes,
    form: Form,
) -> Array:
    """One loss a row: `log Z - (1 - α) z_target - α Σ_v z_v / V`; any leading axes.

    As in the reference a target below 0 counts from the end, and one that is no word gives NaN.
    """
    bias = jnp.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias
    rows, wanted = x.reshape(-1, x.shape[-1]), targets.reshape(-1).astype(jnp.int32)
    wanted = jnp.where(wanted < 0, wanted + form.vocab, wanted)
    flat: Any = _losses(*alike(rows, kernel, bias, wanted), passes, form)
    return flat.reshape(targets.shape)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _losses(x: Array, kernel: Array, bias: Array, targets: Array, passes: Passes, form: Form):
    return _forward(x, kernel, bias, targets, passes, form)[0]


def _forward(x: Array, kernel: Array, bias: Array, targets: Array, passes: Passes, form: Form):
    log_normalizer, of_target, of_all = passes.statistics(x, kernel, bias, targets, form)
    is_word = (targets >= 0) & (targets < form.vocab)
    told = jnp.where(is_word, of_target, jnp.nan)
    if smoothing := form.label_smoothing:  # else 0 times a logit of -inf would be NaN
        told = (1 - smoothing) * told + smoothing * of_all / form.vocab
    return log_normalizer - told, (x, kernel, bias, targets, log_normalizer)


def _backward(passes: Passes, form: Form, residuals, d_losses: Array):
    x, kernel, bias, targets, log_normalizer = residuals
    x_turned = x.T if passes.turn_once else None

    def visit(carry, start: Start, size: int):
        dx, d_kernel, d_bias = carry
        w, b = tile(kernel, start, size), tile(bias, start, size)
        dz = passes.gradient(x, w, b, targets - start, log_normalizer, d_losses, form)
        dz = lax.optimization_barrier(dz)  # else it is computed in both products
        dx += jnp.matmul(dz, w.T, preferred_element_type=jnp.float32)
        d_w = ((x.T if x_turned is None else x_turned) @ dz).astype(kernel.dtype)
        d_kernel = lax.dynamic_update_slice_in_dim(d_kernel, d_w, start, axis=1)
        d_b = jnp.sum(dz, axis=0, dtype=jnp.float32).astype(bias.dtype)
        return dx, d_kernel, lax.dynamic_update_slice_in_dim(d_bias, d_b, start, axis=0)

    zeros = jnp.zeros_like(x, jnp.float32), jnp.zeros_like(kernel), jnp.zeros_like(bias)
    dx, d_kernel, d_bias = over_tiles(visit, zeros, form)
    return dx.astype(x.dtype), d_kernel, d_bias, None


_losses.defvjp(_forward, _backward)


def over_tiles(visit: Callable[[Carry, Start, int], Carry], carry: Carry, form: Form) -> Carry:
    """`carry ← visit(carry, start, size)` for every tile; the last one takes what is left."""
    whole, rest = divmod(form.vocab, form.tile)

    def step(carry: Carry, start: Array) -> tuple[Carry, None]:
        return visit(carry, start, form.tile), None

    if whole:
        carry, _ = lax.scan(step, carry, form.tile * jnp.arange(whole))
    return visit(carry, whole * form.tile, rest) if rest else carry


def tile(x: Array, start: Start, size: int) -> Array:
    """Of a kernel [D, V] or a bias [V]."""
    return lax.dynamic_slice_in_dim(x, start, size, axis=-1)


def gradient_of_logits(
    z: Array, is_target: Array, log_normalizer: Array, d_losses: Array, form: Form
) -> Array:
    """ż of a block of logits [R, v], from numbers of its rows, [R, 1]."""
    smoothing = form.label_smoothing
    wanted = (1 - smoothing) * is_target + smoothing / form.vocab
    return d_losses * (jnp.exp(z - log_normalizer) - wanted)
