"""Recurrent networks: one step of each as its paper prints it, and whole sequences by `lax.scan`.

Vectors are rows, an affine map is `x W + b`; gates lie side by side along the last axis.
Over a sequence, `x W_x` is one product for all steps, taken before the scan: only `h W_h` must wait
for the step before it. Where a mask is False the step does not happen: the state stays, the output
is 0. So padding changes no answer, and a reversed scan begins at the last step that is real, as
with PyTorch's packed sequences.

Products are taken in the dtype of `x`, which outputs have too; the state keeps the dtype that it
comes with, since a bfloat16 sum over hundreds of steps would lose what each of them adds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from zoo.functional.activation import sigmoid, tanh

Input = Float[Array, "B D"]
State = Float[Array, "B H"]
Sequence = Float[Array, "B T D"]
Outputs = Float[Array, "B T H"]
Mask = Bool[Array, "B T"] | None
Carry = TypeVar("Carry")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LSTMState:
    """What an LSTM carries from step to step; layers stack one row for each pass.

    No type checker is asked: transformations put shapes and shardings where the arrays stand.
    """

    h: Any  # [*P, B, H], the last output
    c: Any  # [*P, B, H], the cell, which gates write and erase


def lstm_cell(
    x: Input,
    h: State,
    c: State,
    w_x: Float[Array, "D 4*H"],
    w_h: Float[Array, "H 4*H"],
    b: Float[Array, " 4*H"],
) -> tuple[State, State]:
    """One step of long short-term memory, `(h, c) → (h', c')`; gates in the order i, f, g, o.

        i, f, o = σ(x W_x + h W_h + b)   input gate, forget gate, output gate
        g = tanh(x W_x + h W_h + b)      what may be written
        c' = f ⊙ c + i ⊙ g
        h' = o ⊙ tanh(c')

    Hochreiter & Schmidhuber 1997, sec. 4, with the forget gate of Gers et al. 2000, eq. 3.1; no
    peepholes, and tanh for both squashing functions, as in all current libraries.
    """
    return lstm_update(h, c, x @ w_x + h.astype(x.dtype) @ w_h + b)


def lstm_update(h: State, c: State, a: Float[Array, "B 4*H"]) -> tuple[State, State]:
    """The step from the gates' sums `a = x W_x + h W_h + b` on; of `h` only the dtype counts."""
    i, f, g, o = jnp.split(a.astype(c.dtype), 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return (sigmoid(o) * tanh(c)).astype(h.dtype), c


def lstm(
    x: Sequence,
    h0: State,
    c0: State,
    w_x: Float[Array, "D 4*H"],
    w_h: Float[Array, "H 4*H"],
    b: Float[Array, " 4*H"],
    *,
    mask: Mask = None,
    reverse: bool = False,
) -> tuple[Outputs, tuple[State, State]]:
    """`lstm_cell` over the steps of a sequence: every output, and the last state `(h_T, c_T)`.

    Where `mask` is False there is no step. With `reverse` the last step comes first; outputs still
    stand at their own steps.
    """

    def step(carry: tuple[State, State], a: Array) -> tuple[State, State]:
        h, c = carry
        return lstm_update(h, c, a + h.astype(x.dtype) @ w_h)

    return _over_time(step, lambda carry: carry[0], (h0, c0), x @ w_x + b, mask, reverse)


def gru_cell(
    x: Input,
    h: State,
    w_x: Float[Array, "D 3*H"],
    w_h: Float[Array, "H 3*H"],
    b_x: Float[Array, " 3*H"],
    b_h: Float[Array, " 3*H"],
) -> State:
    """One step of a gated recurrent unit, `h → h'`; gates in the order r, z, n.

        r, z = σ(x W_x + b_x + h W_h + b_h)          reset gate, update gate
        n = tanh(x W_x + b_x + r ⊙ (h W_h + b_h))    candidate
        h' = (1 - z) ⊙ n + z ⊙ h

    Cho et al. 2014, eq. 5-8, in the variant "reset after" of cuDNN and PyTorch: the paper resets
    before the product, `(r ⊙ h) W_h`. After it, one product serves all three gates, and n needs the
    two biases apart.
    """
    return gru_update(h, x @ w_x + b_x, h.astype(x.dtype) @ w_h + b_h)


def gru_update(h: State, a_x: Float[Array, "B 3*H"], a_h: Float[Array, "B 3*H"]) -> State:
    """The step from the two sums on, `a_x = x W_x + b_x` and `a_h = h W_h + b_h`."""
    r_x, z_x, n_x = jnp.split(a_x.astype(h.dtype), 3, axis=-1)
    r_h, z_h, n_h = jnp.split(a_h.astype(h.dtype), 3, axis=-1)
    z = sigmoid(z_x + z_h)
    n = tanh(n_x + sigmoid(r_x + r_h) * n_h)
    return (1 - z) * n + z * h


def gru(
    x: Sequence,
    h0: State,
    w_x: Float[Array, "D 3*H"],
    w_h: Float[Array, "H 3*H"],
    b_x: Float[Array, " 3*H"],
    b_h: Float[Array, " 3*H"],
    *,
    mask: Mask = None,
    reverse: bool = False,
) -> tuple[Outputs, State]:
    """`gru_cell` over the steps of a sequence; mask and reverse as in `lstm`."""

    def step(h: State, a: Array) -> State:
        return gru_update(h, a, h.astype(x.dtype) @ w_h + b_h)

    return _over_time(step, lambda h: h, h0, x @ w_x + b_x, mask, reverse)


def rnn_cell(
    x: Input,
    h: State,
    w_x: Float[Array, "D H"],
    w_h: Float[Array, "H H"],
    b: Float[Array, " H"],
) -> State:
    """One step of the simple recurrent network, `h' = tanh(x W_x + h W_h + b)` (Elman 1990).

    Differs from the paper: tanh for the logistic function, as in all current libraries.
    """
    return tanh((x @ w_x + h.astype(x.dtype) @ w_h + b).astype(h.dtype))


def rnn(
    x: Sequence,
    h0: State,
    w_x: Float[Array, "D H"],
    w_h: Float[Array, "H H"],
    b: Float[Array, " H"],
    *,
    mask: Mask = None,
    reverse: bool = False,
) -> tuple[Outputs, State]:
    """`rnn_cell` over the steps of a sequence; mask and reverse as in `lstm`."""

    def step(h: State, a: Array) -> State:
        return tanh((a + h.astype(x.dtype) @ w_h).astype(h.dtype))

    return _over_time(step, lambda h: h, h0, x @ w_x + b, mask, reverse)


def length_mask(lengths: Int[Array, " B"], num_steps: int) -> Bool[Array, "B T"]:
    """True at the first `lengths[b]` of the steps: the mask of sequences padded at the end."""
    return jnp.arange(num_steps) < lengths[:, None]


def _over_time(
    step: Callable[[Carry, Array], Carry],
    output: Callable[[Carry], Array],
    carry: Carry,
    a: Float[Array, "B T A"],
    mask: Mask,
    reverse: bool,
) -> tuple[Outputs, Carry]:
    """Apply `carry ← step(carry, a[:, t])` for every t; all outputs, and the last carry."""

    def masked_step(carry, inputs):
        a, real = inputs  # [B, A], [B] or None
        after = step(carry, a)
        if real is None:
            return after, output(after).astype(a.dtype)
        real = real[:, None]
        after = jax.tree.map(lambda new, old: jnp.where(real, new, old), after, carry)
        return after, jnp.where(real, output(after), 0).astype(a.dtype)

    inputs = (jnp.swapaxes(a, 0, 1), None if mask is None else mask.T)  # time first, as scan wants
    carry, outputs = lax.scan(masked_step, carry, inputs, reverse=reverse)
    return jnp.swapaxes(outputs, 0, 1), carry
