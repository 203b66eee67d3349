"""Multilayer perceptron (Rumelhart, Hinton & Williams 1986): dense layers, bent in between.

    h₀ = flatten(x),   h_l = φ(h_{l-1} W_l + b_l),   logits = h_L W + b

Differs from the paper: φ is relu unless the config says otherwise (theirs was the sigmoid), the
weights start as in He et al. 2015, and dropout (Srivastava et al. 2014) may follow hidden layers.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from flax import nnx
from jaxtyping import Array, Float, Num

from zoo.functional.activation import ACTIVATIONS
from zoo.functional.init import he_normal
from zoo.functional.ops import Ops
from zoo.layers import Dropout, Linear
from zoo.layers.check import check_choice, check_input, check_positive, check_rate, named_axes


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Sizes of a multilayer perceptron."""

    input_shape: tuple[int, ...] = (28, 28, 1)  # of one example, which is flattened
    hidden_dims: tuple[int, ...] = (256, 128)  # width of each hidden layer
    num_classes: int = 10
    activation: str = "relu"  # a name in zoo.functional.activation.ACTIVATIONS
    dropout_rate: float = 0.0  # after each hidden layer, in training

    def __post_init__(self):
        check_positive(
            input_shape=self.input_shape,
            hidden_dims=self.hidden_dims,
            num_classes=self.num_classes,
        )
        check_choice(self.activation, tuple(ACTIVATIONS), "activation")
        check_rate(dropout_rate=self.dropout_rate)

    def for_data(self, input_shape: tuple[int, ...], num_outputs: int) -> "MLPConfig":
        """This config for examples of that shape and so many classes."""
        return replace(self, input_shape=input_shape, num_classes=num_outputs)


class MLP(nnx.Module):
    """Flatten, hidden layers, classifier."""

    def __init__(self, config: MLPConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        dims = (math.prod(config.input_shape), *config.hidden_dims)
        self.hidden = nnx.List(
            [
                Linear(in_dim, out_dim, rngs=rngs, kernel_init=he_normal, ops=ops)
                for in_dim, out_dim in pairwise(dims)
            ]
        )
        self.classifier = Linear(dims[-1], config.num_classes, rngs=rngs, ops=ops)
        self.dropout = Dropout(config.dropout_rate)

    def __call__(
        self, x: Num[Array, "..."], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B num_classes"]:
        """From `[B, *input_shape]` to logits; `rngs` is needed when dropout is on."""
        check_input(self, x, **named_axes(self.config.input_shape))
        activation = ACTIVATIONS[self.config.activation]
        x = x.reshape(x.shape[0], -1)
        for linear in self.hidden:
            x = self.dropout(activation(linear(x)), rngs=rngs)
        return self.classifier(x)
