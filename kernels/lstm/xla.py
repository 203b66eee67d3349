"""LSTM for XLA's CPU backend: a backward pass of its own; `recurrence.py` has the equations.

Differentiating the scan of the reference adds `h[t-1]ᵀ ȧ[t]`, a product with a small inner size, to
the gradient of `W_h` in every step. Here the backward scan does only what must wait for the step
after it, and leaves the gradients ȧ of the gates' sums. The forward pass keeps the four gates and
the cell, 5H numbers a step beside its output h; only tanh(c) is computed twice.

All four gates are one tanh, as σ(x) = ½ + ½ tanh(x/2). What XLA makes of a step decides how long it
takes. The gates are kept as four arrays: a quarter of a row of one array, cut out inside the loop
that uses it, is read one number at a time, which took five times as long. Barriers keep XLA from
computing a gate again in each of the arrays that it is a part of, and from placing the parts of ȧ
one number at a time.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels.dense.xla import dense
from kernels.lstm.recurrence import Form, Passes, State, over_time
from kernels.varying import alike
from zoo.functional.activation import tanh


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
    """`zoo.functional.recurrent.lstm`; differentiable backwards, not by `jax.jvp`.

    Inputs and weights of several types are all taken in the widest; the state keeps its own.
    """
    dtype = jnp.result_type(x, w_x, w_h, b)
    wanted = jnp.result_type(x, w_x, b)  # of the reference's outputs
    x, w_x, w_h, b = (array.astype(dtype) for array in (x, w_x, w_h, b))
    a = dense(jnp.swapaxes(x, 0, 1), w_x)  # [T, B, 4H]: turned while it is narrow
    mask = None if mask is None else mask.T[..., None]
    result: Any = over_time(*alike(a, h0, c0, w_h, b, mask), Form(reverse), PASSES)
    outputs, last = result
    return jnp.swapaxes(outputs, 0, 1).astype(wanted), last


def _forward(
    a: Array,
    h0: Array,
    c0: Array,
    w_h: Array,
    b: Array,
    mask: Array | None,
    form: Form,
    keep: bool,  # what nobody reads, XLA does not compute
):
    dtype = a.dtype
    is_g = jnp.repeat(jnp.array([False, False, True, False]), h0.shape[-1])
    scale = jnp.where(is_g, 1, 0.5).astype(c0.dtype)  # g is a tanh, the others are ½ + ½ tanh
    shift = jnp.where(is_g, 0, 0.5).astype(c0.dtype)

    def step(carry, inputs):
        h, c = carry
        from_x, real = inputs
        sums = from_x.astype(c.dtype) + (h.astype(dtype) @ w_h + b).astype(c.dtype)
        i, f, g, o = jnp.split(lax.optimization_barrier(shift + scale * tanh(scale * sums)), 4, -1)
        c_after = lax.optimization_barrier(f * c + i * g)
        h_after = (o * tanh(c_after)).astype(h.dtype)
        if real is not None:
            h_after, c_after = jnp.where(real, h_after, h), jnp.where(real, c_after, c)
        return (h_after, c_after), (h_after, c, (i, f, g, o))

    last, (h_after, c_before, gates) = lax.scan(step, (h0, c0), (a, mask), reverse=form.reverse)
    return h_after, last, (gates, c_before, last[1])


def _backward(d_outputs: Array, d_last: State, kept, w_h: Array, mask: Array | None, form: Form):
    gates, c_before, c_last = kept
    dtype = w_h.dtype

    def step(carry, inputs):
        dh_after, dc_after, c_after = carry
        dy, (i, f, g, o), c, real = inputs
        tanh_c = tanh(c_after)
        dh = (dh_after + dy.astype(dh_after.dtype)).astype(dc_after.dtype)
        dc = lax.optimization_barrier(dc_after + dh * o * (1 - tanh_c * tanh_c))
        parts = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g)
        parts = lax.optimization_barrier((*parts, dh * tanh_c * o * (1 - o)))
        da = jnp.concatenate(parts, axis=-1)
        if real is not None:  # h and c stayed: c_after is c, and no gate had a part in it
            da = jnp.where(real, da, 0)
        da = da.astype(dtype)
        dh, dc = (da @ w_back).astype(dh_after.dtype), dc * f
        if real is not None:
            dh, dc = jnp.where(real, dh, dh_after), jnp.where(real, dc, dc_after)
        return (dh, dc, c), da

    w_back = w_h.T  # turned once, not in every step
    start, inputs = (*d_last, c_last), (d_outputs, gates, c_before, mask)
    (dh0, dc0, _), da = lax.scan(step, start, inputs, reverse=not form.reverse)
    return da, dh0, dc0


PASSES = Passes(_forward, _backward)
