"""What the back ends of the LSTM share: all that need not wait for the step before.

The product of the input with its weights, `a = x W_x`, is one for all steps. The backward pass goes
over the steps only to find ȧ, the gradients of the gates' sums; all else is one product again:

    Ẇ_h = Σ_{b,t} h[t-1]ᵀ ȧ[t],   Ẇ_x = Σ_{b,t} x[t]ᵀ ȧ[t],   ẋ = ȧ W_xᵀ,   ḃ = Σ_{b,t} ȧ[t]

A dot over a letter is the gradient with respect to it. At a step, from the sums of its gates,
c' = f ⊙ c + i ⊙ g and ẏ, the gradient of its output:

    ḣ' = ẏ + ȧ[t+1] W_hᵀ,   ċ' = f[t+1] ⊙ ċ[t+1] + ḣ' ⊙ o ⊙ (1 - tanh²(c'))
    ȧ = ċ' ⊙ g ⊙ i(1 - i),   ċ' ⊙ c ⊙ f(1 - f),   ċ' ⊙ i ⊙ (1 - g²),   ḣ' ⊙ tanh(c') ⊙ o(1 - o)

Where a mask is False, ȧ = 0 and the gradients of h and c pass by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kernels.derivative import differentiable_no_more
from kernels.varying import alike
from zoo.functional.activation import sigmoid, tanh

State = tuple[Array, Array]  # h and c, or their gradients
Gates = Sequence[Array]  # of i, f, g, o

# For the loops of a back end, given which of their arguments are no arrays.
guarded = partial(differentiable_no_more, "the LSTM kernel", "zoo.functional.recurrent.lstm")


@dataclass(frozen=True)
class Form:
    """What a pass must know when it is compiled."""

    reverse: bool
    interpret: bool = False


class Passes(NamedTuple):
    """The two loops of a back end, over arrays that have time first, [T, B, ...].

    The mask is [T, B, 1], or None where every step is real.
    """

    # (a, h0, c0, w_h, b, mask, form, keep) -> h after every step, also where the mask is False; the
    # last (h, c); and what the backward loop shall be given, which only counts if `keep`
    forward: Callable[..., tuple[Array, State, Any]]
    # (d_outputs, gradients of the last (h, c), kept, w_h, mask, form) -> ȧ, ḣ0, ċ0
    backward: Callable[..., tuple[Array, Array, Array]]


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def over_time(
    a: Array,
    h0: Array,
    c0: Array,
    w_h: Array,
    b: Array,
    mask: Array | None,
    form: Form,
    passes: Passes,
):
    """From the input's products `x W_x`, [T, B, 4H], to outputs and the last (h, c)."""
    h, last, _ = passes.forward(a, h0, c0, w_h, b, mask, form, False)
    return _outputs(h, mask, a.dtype), last


def _forward(a, h0, c0, w_h, b, mask, form: Form, passes: Passes):
    h, last, kept = passes.forward(a, h0, c0, w_h, b, mask, form, True)
    return (_outputs(h, mask, a.dtype), last), (kept, h, h0, w_h, mask)


def _outputs(h: Array, mask: Array | None, dtype: Any) -> Array:
    h = h.astype(dtype)
    return h if mask is None else jnp.where(mask, h, 0)


def _backward(form: Form, passes: Passes, residuals, gradients):
    kept, h, h0, w_h, mask = residuals
    da, dh0, dc0 = passes.backward(*gradients, kept, w_h, mask, form)
    # Before a step, h is what its neighbour left; before the first, h0.
    first = h0[None].astype(h.dtype)
    h_before = [h[1:], first] if form.reverse else [first, h[:-1]]
    h_before = jnp.concatenate(h_before).astype(w_h.dtype).reshape(-1, h0.shape[-1])
    d_w_h = h_before.T @ da.reshape(-1, da.shape[-1])
    return da, dh0, dc0, d_w_h, jnp.sum(da, axis=(0, 1)), None


over_time.defvjp(_forward, _backward)


def check(x: Array, h0: Array, c0: Array, *weights: Array) -> None:
    """Raises NotImplementedError for numbers that the Pallas kernels do not take."""
    dtypes = {str(array.dtype) for array in (x, *weights)}
    if dtypes not in ({"float32"}, {"bfloat16"}):
        raise NotImplementedError(
            f"x and the weights are {', '.join(sorted(dtypes))}, and neither all float32 nor all "
            "bfloat16; cast them, or use zoo.functional.recurrent.lstm"
        )
    if {str(h0.dtype), str(c0.dtype)} != {"float32"}:
        raise NotImplementedError(
            f"h0 is {h0.dtype} and c0 {c0.dtype}, and the kernel keeps both in float32; cast them, "
            "or use zoo.functional.recurrent.lstm"
        )


def padded(
    x: Array,
    state: State,
    weights: tuple[Array, Array, Array],
    mask: Array | None,
    blocks: tuple[int, int],
    form: Form,
    passes: Passes,
) -> tuple[Array, State]:
    """`over_time` of a whole LSTM whose batch and H are padded to multiples of `blocks`.

    Each gate is padded by itself. No weight leads from what is added to what was there, so it
    changes no result and no gradient.

    Args:
        x: `[B, T, D]`.
        state: h0 and c0, `[B, H]`.
        weights: W_x, W_h and b.
        mask: `[B, T]`.
    """
    (batch, dim), (w_x, w_h, b) = state[0].shape, weights
    if not (batch and x.shape[1]):
        return jnp.zeros((*x.shape[:2], dim), x.dtype), state
    rows, columns = -batch % blocks[0], -dim % blocks[1]

    def gates(weight: Array) -> Array:
        weight = weight.reshape(*weight.shape[:-1], 4, dim)
        weight = jnp.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, columns)])
        return weight.reshape(*weight.shape[:-2], -1)

    x = jnp.pad(jnp.swapaxes(x, 0, 1), [(0, 0), (0, rows), (0, 0)])  # padded while it is narrow
    h0, c0 = (jnp.pad(array, [(0, rows), (0, columns)]) for array in state)
    w_h = jnp.pad(gates(w_h), [(0, columns), (0, 0)])
    mask = None if mask is None else jnp.pad(mask.T, [(0, 0), (0, rows)])[..., None]
    arrays = alike(x @ gates(w_x), h0, c0, w_h, gates(b), mask)
    result: Any = over_time(*arrays, form, passes)
    outputs, (h, c) = result
    outputs = jnp.swapaxes(outputs[:, :batch, :dim], 0, 1)
    return outputs, (h[:batch, :dim], c[:batch, :dim])


def step_forward(sums: Gates, c: Array) -> State:
    """h and c after a step, from the sums of its gates and c before it; float32 blocks."""
    i, f, g, o = _gates(sums)
    c = f * c + i * g
    return o * tanh(c), c


def step_backward(sums: Gates, c: Array, dh: Array, dc: Array) -> tuple[Gates, Array]:
    """ȧ of each gate, and ċ before a step, from ḣ' and the part of ċ' that comes by c."""
    i, f, g, o = _gates(sums)
    tanh_c = tanh(f * c + i * g)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    da = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g)
    return (*da, dh * tanh_c * o * (1 - o)), dc * f


def _gates(sums: Gates) -> Gates:
    i, f, g, o = sums
    return sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
