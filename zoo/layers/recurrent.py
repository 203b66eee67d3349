"""Recurrent layers: long short-term memory, gated recurrent units and Elman's network.

Each is a stack of `num_layers`, read forwards or, if bidirectional, both ways with the outputs side
by side. One layer in one direction is a pass; the state has one row a pass, `[P, B, H]`, layer by
layer, forwards before backwards, as in PyTorch. It comes in and goes out with every call.

All parameters start as U(±1/√H), as in PyTorch. LSTM and RNN have one bias, where PyTorch has two
of which only the sum counts. `forget_bias` is added to the bias of the LSTM's forget gate: 0, the
default, is PyTorch's start; at 1 the gate starts open, so that gradients reach far back from the
first step on (Gers et al. 2000; Jozefowicz et al. 2015, sec. 2.2).
"""

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from zoo.functional.init import uniform
from zoo.functional.ops import Ops
from zoo.functional.recurrent import LSTMState, gru, rnn
from zoo.layers.check import check_positive
from zoo.layers.dropout import Dropout

State = LSTMState | Float[Array, "P B H"]
Mask = Bool[Array, "B T"] | None


class _Pass(nnx.Module):
    """One layer in one direction: weights and bias of so many gates, side by side."""

    def __init__(self, in_dim: int, dim: int, num_gates: int, rngs: nnx.Rngs):
        self.w_x = _param(rngs, dim, in_dim, num_gates * dim)
        self.w_h = _param(rngs, dim, dim, num_gates * dim)
        self.b = _param(rngs, dim, num_gates * dim)

    def __call__(self, x: Array, state: Any, mask: Mask, reverse: bool) -> tuple[Array, Any]:
        raise NotImplementedError


class _LSTMPass(_Pass):
    def __init__(self, in_dim: int, dim: int, rngs: nnx.Rngs, forget_bias: float, ops: Ops):
        super().__init__(in_dim, dim, 4, rngs)
        self.b[...] = self.b.at[dim : 2 * dim].add(forget_bias)  # i, f, g, o
        self.lstm = ops.lstm

    def __call__(self, x: Array, state: Any, mask: Mask, reverse: bool) -> tuple[Array, Any]:
        w_x, w_h, b = (p.astype(x.dtype) for p in (self.w_x, self.w_h, self.b))
        y, (h, c) = self.lstm(x, state.h, state.c, w_x, w_h, b, mask=mask, reverse=reverse)
        return y, LSTMState(h, c)


class _GRUPass(_Pass):
    def __init__(self, in_dim: int, dim: int, rngs: nnx.Rngs):
        super().__init__(in_dim, dim, 3, rngs)
        self.b_h = _param(rngs, dim, 3 * dim)

    def __call__(self, x: Array, state: Any, mask: Mask, reverse: bool) -> tuple[Array, Any]:
        w_x, w_h, b, b_h = (p.astype(x.dtype) for p in (self.w_x, self.w_h, self.b, self.b_h))
        return gru(x, state, w_x, w_h, b, b_h, mask=mask, reverse=reverse)


class _RNNPass(_Pass):
    def __call__(self, x: Array, state: Any, mask: Mask, reverse: bool) -> tuple[Array, Any]:
        w_x, w_h, b = (p.astype(x.dtype) for p in (self.w_x, self.w_h, self.b))
        return rnn(x, state, w_x, w_h, b, mask=mask, reverse=reverse)


class _Recurrent(nnx.Module):
    """What LSTM, GRU and RNN share: how passes are put together."""

    def __init__(
        self,
        build: Callable[[int], _Pass],  # from its input's width, a pass
        in_dim: int,
        dim: int,
        num_layers: int,
        bidirectional: bool,
        dropout_rate: float,
    ):
        check_positive(in_dim=in_dim, dim=dim, num_layers=num_layers)
        self.in_dim, self.dim = in_dim, dim
        self.directions = (False, True) if bidirectional else (False,)  # reversed?
        self.out_dim = dim * len(self.directions)
        widths = [in_dim] + [self.out_dim] * (num_layers - 1)
        self.passes = nnx.List([build(width) for width in widths for _ in self.directions])
        self.dropout = Dropout(dropout_rate)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: State,
        *,
        mask: Bool[Array, "B T"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "B T out_dim"], Any]:
        """Outputs `[B, T, H]`, or `[B, T, 2H]` both ways, and the state after the last step.

        Where `mask` is False there is no step: the output is 0, and no answer depends on `x` there.
        `rngs` is needed when dropout is on.
        """
        self._check(x, state)
        num_directions, after = len(self.directions), []
        for first in range(0, len(self.passes), num_directions):  # of the layer's passes
            if first:
                x = self.dropout(x, rngs=rngs)
            outputs = []
            for row, reverse in enumerate(self.directions, start=first):
                before = jax.tree.map(itemgetter(row), state)
                y, last = self.passes[row](x, before, mask, reverse)
                outputs.append(y)
                after.append(last)
            x = jnp.concatenate(outputs, axis=-1)
        return x, jax.tree.map(lambda *rows: jnp.stack(rows), *after)

    def initial_state(self, batch: int) -> State:
        """All zeros, in float32 whatever the input: it adds up over the steps."""
        return jnp.zeros((len(self.passes), batch, self.dim))

    def _check(self, x: Array, state: Any) -> None:
        kind = type(self).__name__
        if x.ndim != 3 or x.shape[-1] != self.in_dim:
            raise ValueError(
                f"{kind} wants inputs [batch, steps, {self.in_dim}], got shape {x.shape}; one step "
                "alone is x[:, None]"
            )
        want = (len(self.passes), x.shape[0], self.dim)
        for rows in jax.tree.leaves(state):
            if rows.shape != want:
                raise ValueError(
                    f"{kind} wants a state of shape [passes, batch, width] = {want}, got "
                    f"{rows.shape}; begin with initial_state(batch={x.shape[0]})"
                )


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; Gers et al. 2000), in layers.

    `dropout_rate` is that of the connections between layers, not between steps
    (Zaremba et al. 2014).
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        rngs: nnx.Rngs,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout_rate: float = 0.0,
        forget_bias: float = 0.0,
        ops: Ops = Ops(),
    ):
        def build(width: int) -> _Pass:
            return _LSTMPass(width, dim, rngs, forget_bias, ops)

        super().__init__(build, in_dim, dim, num_layers, bidirectional, dropout_rate)

    __call__ = _Recurrent.__call__  # on the class itself, where `zoo.summarize` looks for it

    def initial_state(self, batch: int) -> LSTMState:
        """All zeros, in float32 whatever the input."""
        zeros = jnp.zeros((len(self.passes), batch, self.dim))
        return LSTMState(zeros, zeros)


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014), reset after the product, in layers."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        rngs: nnx.Rngs,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout_rate: float = 0.0,
    ):
        def build(width: int) -> _Pass:
            return _GRUPass(width, dim, rngs)

        super().__init__(build, in_dim, dim, num_layers, bidirectional, dropout_rate)

    __call__ = _Recurrent.__call__  # on the class itself, where `zoo.summarize` looks for it


class RNN(_Recurrent):
    """The simple recurrent network (Elman 1990) with tanh, in layers."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        rngs: nnx.Rngs,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout_rate: float = 0.0,
    ):
        def build(width: int) -> _Pass:
            return _RNNPass(width, dim, 1, rngs)

        super().__init__(build, in_dim, dim, num_layers, bidirectional, dropout_rate)

    __call__ = _Recurrent.__call__  # on the class itself, where `zoo.summarize` looks for it


def _param(rngs: nnx.Rngs, dim: int, *shape: int) -> nnx.Param:
    values = uniform(rngs.params(), shape, limit=1 / math.sqrt(dim))
    return nnx.Param(values, axes=("in", "out")[-len(shape) :])
