"""LSTM for XLA's CPU backend: a backward pass of its own.

Differentiating the scan of the reference adds `h[t-1]ᵀ ȧ[t]`, a product with a small inner size, to
the gradient of `W_h` in every step. Here the backward scan does only what must wait for the step
after it, and leaves the gradients ȧ of the gates' sums; all else is one product over all steps:

    Ẇ_h = Σ_{b,t} h[t-1]ᵀ ȧ[t],   Ẇ_x = Σ_{b,t} x[t]ᵀ ȧ[t],   ẋ = ȧ W_xᵀ,   ḃ = Σ_{b,t} ȧ[t]

A dot over a letter is the gradient with respect to it. The forward pass keeps the gates, 4H numbers
a step, and the cells; nothing is computed twice but tanh(c). It writes the gates over the sums
they come from, and adds b there: arrays of that size cost as much to fill as a product to compute.
Differentiated a second time it keeps that array for every step: use the reference for that.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels.dense.xla import dense
from zoo.functional.activation import sigmoid, tanh


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
    a = dense(jnp.swapaxes(x, 0, 1), w_x)  # [T, B, 4H]: turned while it is narrow
    mask = None if mask is None else mask.T[..., None]
    result: Any = _over_time(a, h0, c0, w_h, b, mask, reverse)
    outputs, last = result
    return jnp.swapaxes(outputs, 0, 1), last


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _over_time(
    a: Array, h0: Array, c0: Array, w_h: Array, b: Array, mask: Array | None, reverse: bool
):
    """From the input's products `x W_x`, time first, to outputs and the last (h, c)."""
    return _forward(a, h0, c0, w_h, b, mask, reverse)[0]


def _forward(
    a: Array, h0: Array, c0: Array, w_h: Array, b: Array, mask: Array | None, reverse: bool
):
    dtype = a.dtype

    def step(carry, inputs):
        h, c, buffer = carry  # sums at the steps to come, gates at those that are done
        t, real = inputs
        sums = lax.dynamic_index_in_dim(buffer, t, keepdims=False) + (h.astype(dtype) @ w_h + b)
        i, f, g, o = jnp.split(sums, 4, axis=-1)
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        gates = jnp.concatenate([i, f, g, o], axis=-1)
        c_after = f * c + i * g
        h_after = (o * tanh(c_after)).astype(h.dtype)
        if real is not None:
            h_after, c_after = jnp.where(real, h_after, h), jnp.where(real, c_after, c)
        buffer = lax.dynamic_update_index_in_dim(buffer, gates, t, axis=0)
        return (h_after, c_after, buffer), (h_after, c)

    start = (h0, c0, a.astype(c0.dtype))
    steps = (jnp.arange(len(a)), mask)
    (h, c, gates), (h_after, c_before) = lax.scan(step, start, steps, reverse=reverse)
    outputs = h_after.astype(dtype)
    if mask is not None:
        outputs = jnp.where(mask, outputs, 0)
    return (outputs, (h, c)), (gates, h_after, c_before, h0, w_h, mask)


def _backward(reverse: bool, residuals, gradients):
    gates, h_after, c_before, h0, w_h, mask = residuals
    d_outputs, (dh, dc) = gradients
    dtype = w_h.dtype

    def step(carry, inputs):
        dh_after, dc_after = carry
        dy, gates, c_before, real = inputs
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        tanh_c = tanh(f * c_before + i * g)
        dh = dh_after + dy.astype(dh_after.dtype)
        dc = dc_after + dh * o * (1 - tanh_c * tanh_c)
        da = jnp.concatenate(
            [
                dc * g * i * (1 - i),
                dc * c_before * f * (1 - f),
                dc * i * (1 - g * g),
                dh * tanh_c * o * (1 - o),
            ],
            axis=-1,
        )
        if real is not None:
            da = jnp.where(real, da, 0)
        before = ((da.astype(dtype) @ w_back).astype(dh.dtype), dc * f)
        if real is not None:
            before = jax.tree.map(partial(jnp.where, real), before, carry)
        return before, da.astype(dtype)

    w_back = w_h.T  # turned once, not in every step
    inputs = (d_outputs, gates, c_before, mask)
    (dh0, dc0), da = lax.scan(step, (dh, dc), inputs, reverse=not reverse)
    # Before a step, h is what its neighbour left; before the first, h0.
    if reverse:
        first, h, rest = da[-1], h_after[1:], da[:-1]
    else:
        first, h, rest = da[0], h_after[:-1], da[1:]
    h, rest = (rows.astype(dtype).reshape(-1, rows.shape[-1]) for rows in (h, rest))
    d_w_h = h.T @ rest + h0.astype(dtype).T @ first
    return da, dh0, dc0, d_w_h, jnp.sum(da, axis=(0, 1)), None


_over_time.defvjp(_forward, _backward)
