"""Cross-entropy over tiles of the vocabulary, for XLA.

A pass over the tiles keeps, of each row, the largest logit m so far, s = Σ_v exp(z_v - m), the
target's logit and the sum of all (Milakov and Gimelshein 2018, "Online normalizer calculation for
softmax", algorithm 3):

    m' = max(m, max_v z_v),   s' = s exp(m - m') + Σ_v exp(z_v - m'),   log Z = m + log s

The backward pass computes the tile's logits again, which costs one product more than keeping them
would, and reads none of V numbers a row from memory:

    ż_v = L̇ (exp(z_v - log Z) - (1 - α) 1[v = target] - α / V),   ẋ = Σ_v ż_v W_vᵀ,   Ẇ_v = xᵀ ż_v

A dot over a letter is the gradient with respect to it; α is the label smoothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from kernels.dense.xla import dense
from zoo.functional.cross_entropy import softmax_cross_entropy

TILE = 2048  # logits of a row that exist at a time: 1,024 rows of them are 8 MB
Carry = TypeVar("Carry")
Start = int | Array  # where a tile begins


def linear_cross_entropy(
    x: Float[Array, "*B D"],
    kernel: Float[Array, "D V"],
    targets: Int[Array, "*B"],
    bias: Float[Array, " V"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, "*B"]:
    """`zoo.functional.cross_entropy.linear_cross_entropy`; differentiable once, backwards."""
    if kernel.shape[1] <= TILE:  # one tile: nothing is won by computing it again
        return softmax_cross_entropy(dense(x, kernel, bias), targets, label_smoothing)
    rows = x.reshape(-1, x.shape[-1])
    losses: Any = _losses(rows, kernel, bias, targets.reshape(-1), label_smoothing)
    return losses.reshape(targets.shape)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _losses(x: Array, kernel: Array, bias: Array | None, targets: Array, label_smoothing: float):
    return _forward(x, kernel, bias, targets, label_smoothing)[0]


def _forward(x: Array, kernel: Array, bias: Array | None, targets: Array, label_smoothing: float):
    num_rows, vocab = len(x), kernel.shape[1]

    def visit(carry, start: Start, size: int):
        largest, total, of_target, of_all = carry
        z = _logits(x, kernel, bias, start, size)
        now = jnp.maximum(largest, z.max(-1))
        total = total * jnp.exp(largest - now) + jnp.exp(z - now[:, None]).sum(-1)
        of_target += jnp.where(_is_target(targets, start, size), z, 0).sum(-1)
        return now, total, of_target, of_all + z.sum(-1)

    zeros = jnp.zeros(num_rows)
    start = jnp.full(num_rows, -jnp.inf), zeros, zeros, zeros
    largest, total, of_target, of_all = _over_tiles(visit, start, vocab)
    log_normalizer = largest + jnp.log(total)
    told = (1 - label_smoothing) * of_target + label_smoothing * of_all / vocab
    return log_normalizer - told, (x, kernel, bias, targets, log_normalizer)


def _backward(label_smoothing: float, residuals, gradient: Array):
    x, kernel, bias, targets, log_normalizer = residuals
    vocab = kernel.shape[1]

    def visit(carry, start: Start, size: int):
        dx, d_kernel, d_bias = carry
        z = _logits(x, kernel, bias, start, size)
        wanted = (1 - label_smoothing) * _is_target(targets, start, size) + label_smoothing / vocab
        dz = gradient[:, None] * (jnp.exp(z - log_normalizer[:, None]) - wanted)
        dz = lax.optimization_barrier(dz.astype(x.dtype))  # else it is computed in both products
        dx += jnp.matmul(dz, _tile(kernel, start, size).T, preferred_element_type=jnp.float32)
        d_kernel = lax.dynamic_update_slice_in_dim(d_kernel, x.T @ dz, start, axis=1)
        if d_bias is not None:
            d_bias = lax.dynamic_update_slice_in_dim(d_bias, dz.sum(0), start, axis=0)
        return dx, d_kernel, d_bias

    start = (
        jnp.zeros(x.shape),
        jnp.zeros_like(kernel),
        None if bias is None else jnp.zeros_like(bias),
    )
    dx, d_kernel, d_bias = _over_tiles(visit, start, vocab)
    return dx.astype(x.dtype), d_kernel, d_bias, None


_losses.defvjp(_forward, _backward)


def _over_tiles(visit: Callable[[Carry, Start, int], Carry], carry: Carry, vocab: int) -> Carry:
    """`carry ← visit(carry, start, size)` for every tile; the last one takes what is left."""
    whole, rest = divmod(vocab, TILE)

    def step(carry: Carry, start: Array) -> tuple[Carry, None]:
        return visit(carry, start, TILE), None

    carry, _ = lax.scan(step, carry, TILE * jnp.arange(whole))
    return visit(carry, whole * TILE, rest) if rest else carry


def _logits(x: Array, kernel: Array, bias: Array | None, start: Start, size: int) -> Array:
    z = jnp.matmul(x, _tile(kernel, start, size), preferred_element_type=jnp.float32)
    if bias is None:
        return z
    return z + lax.dynamic_slice_in_dim(bias, start, size).astype(jnp.float32)


def _tile(kernel: Array, start: Start, size: int) -> Array:
    return lax.dynamic_slice_in_dim(kernel, start, size, axis=1)


def _is_target(targets: Array, start: Start, size: int) -> Array:
    return start + jnp.arange(size) == targets[:, None]
