"""LSTM for XLA's CPU backend: a backward pass of its own.

Differentiating the scan of the reference adds `h[t-1]ᵀ ȧ[t]`, a product with a small inner size, to
the gradient of `W_h` in every step. Here the backward scan does only what must wait for the step
after it, and leaves the gradients ȧ of the gates' sums; all else is one product over all steps:

    Ẇ_h = Σ_{b,t} h[t-1]ᵀ ȧ[t],   Ẇ_x = Σ_{b,t} x[t]ᵀ ȧ[t],   ẋ = ȧ W_xᵀ,   ḃ = Σ_{b,t} ȧ[t]

A dot over a letter is the gradient with respect to it. The forward pass keeps the gates, 4H numbers
a step, and the cells; nothing is computed twice.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels.dense.xla import dense
from zoo.functional.activation import sigmoid, tanh

UNROLL = 1


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
) -> tuple[Float[Array, "B T H"], tuple[Float[Array, "B H"], Float[Array, "B H"]]]:
    """`zoo.functional.recurrent.lstm`; differentiable backwards, not by `jax.jvp`."""
    a = dense(jnp.swapaxes(x, 0, 1), w_x, b)  # [T, B, 4H]: turned while it is narrow
    mask = None if mask is None else mask.T[..., None]
    result: Any = _over_time(a, h0, c0, w_h, mask, reverse)
    outputs, last = result
    return jnp.swapaxes(outputs, 0, 1), last


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _over_time(a: Array, h0: Array, c0: Array, w_h: Array, mask: Array | None, reverse: bool):
    """From the input's part of the gates' sums, time first, to outputs and the last (h, c)."""
    return _forward(a, h0, c0, w_h, mask, reverse)[0]


def _forward(a: Array, h0: Array, c0: Array, w_h: Array, mask: Array | None, reverse: bool):
    def step(carry, inputs):
        h, c = carry
        a, real = inputs
        sums = (a + h.astype(a.dtype) @ w_h).astype(c.dtype)
        i, f, g, o = jnp.split(sums, 4, axis=-1)
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c_after = f * c + i * g
        h_after = (o * tanh(c_after)).astype(h.dtype)
        kept = (jnp.concatenate([i, f, g, o], -1), h, c)
        output = h_after.astype(a.dtype)
        if real is None:
            return (h_after, c_after), (output, kept)
        after = (jnp.where(real, h_after, h), jnp.where(real, c_after, c))
        return after, (jnp.where(real, output, 0), kept)

    last, (outputs, kept) = lax.scan(step, (h0, c0), (a, mask), reverse=reverse, unroll=UNROLL)
    return (outputs, last), (kept, w_h, mask)


def _backward(reverse: bool, residuals, gradients):
    (gates, h_before, c_before), w_h, mask = residuals
    d_outputs, (dh, dc) = gradients
    dtype = w_h.dtype

    def step(carry, inputs):
        dh_after, dc_after = carry
        dy, gates, c_before, real = inputs
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        t = tanh(f * c_before + i * g)
        dh = dh_after + dy.astype(dh_after.dtype)
        dc = dc_after + dh * o * (1 - t * t)
        da = jnp.concatenate(
            [
                dc * g * i * (1 - i),
                dc * c_before * f * (1 - f),
                dc * i * (1 - g * g),
                dh * t * o * (1 - o),
            ],
            axis=-1,
        )
        if real is not None:
            da = jnp.where(real, da, 0)
        da = da.astype(dtype)
        before = ((da @ w_back).astype(dh.dtype), dc * f)
        if real is not None:
            before = jax.tree.map(partial(jnp.where, real), before, carry)
        return before, da

    w_back = w_h.T  # turned once, not in every step
    inputs = (d_outputs, gates, c_before, mask)
    (dh0, dc0), da = lax.scan(step, (dh, dc), inputs, reverse=not reverse, unroll=UNROLL)
    rows = (-1, w_h.shape[0])
    d_w_h = h_before.astype(dtype).reshape(rows).T @ da.reshape(-1, w_h.shape[1])
    return da, dh0, dc0, d_w_h, None


_over_time.defvjp(_forward, _backward)
