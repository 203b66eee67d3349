"""Linear regression and logistic regression: a single matrix product, and what it can mean.

Linear regression (Legendre 1805; Gauss 1809) reads the product as a number:

    ŷ = x W + b

Logistic regression (Cox 1958; for more than two classes McFadden 1973) reads it as logits, the
logarithms of unnormalised class probabilities:

    P(class v | x) = softmax(x W + b)_v

Differs from the textbook: two classes get two logits, of which only the difference counts. Its
sigmoid is the usual P(class 1 | x), so the model is the same, and one code serves any number of
classes.
"""

from dataclasses import dataclass, replace

from flax import nnx
from jaxtyping import Array, Float, Num

from zoo.functional import init
from zoo.functional.ops import Ops
from zoo.layers import Linear
from zoo.layers.check import check_data_shape, check_input, check_positive


@dataclass(frozen=True, kw_only=True)
class LinearRegressionConfig:
    """How many numbers go in, and how many are predicted."""

    num_features: int = 10
    num_outputs: int = 1

    def __post_init__(self):
        check_positive(num_features=self.num_features, num_outputs=self.num_outputs)

    def for_data(self, input_shape: tuple[int, ...], num_outputs: int) -> "LinearRegressionConfig":
        """This config for examples of shape (features,)."""
        check_data_shape(self, input_shape, 1, "features,")
        return replace(self, num_features=input_shape[0], num_outputs=num_outputs)


class LinearRegression(nnx.Module):
    """ŷ = x W + b, from W = 0: the squared error is convex, so any start finds the same minimum."""

    def __init__(self, config: LinearRegressionConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        self.linear = Linear(
            config.num_features, config.num_outputs, rngs=rngs, kernel_init=init.zeros, ops=ops
        )

    def __call__(
        self, x: Num[Array, "..."], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B num_outputs"]:
        """From features `[B, num_features]` to predictions; nothing here is random."""
        check_input(self, x, features=self.config.num_features)
        return self.linear(x)


@dataclass(frozen=True, kw_only=True)
class LogisticRegressionConfig:
    """How many numbers go in, and between how many classes to decide."""

    num_features: int = 30
    num_classes: int = 2

    def __post_init__(self):
        check_positive(num_features=self.num_features, num_classes=self.num_classes)

    def for_data(
        self, input_shape: tuple[int, ...], num_outputs: int
    ) -> "LogisticRegressionConfig":
        """This config for examples of shape (features,) and so many classes."""
        check_data_shape(self, input_shape, 1, "features,")
        return replace(self, num_features=input_shape[0], num_classes=num_outputs)


class LogisticRegression(nnx.Module):
    """logits = x W + b, from W = 0: all classes equally likely; cross-entropy is convex too."""

    def __init__(self, config: LogisticRegressionConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        self.linear = Linear(
            config.num_features, config.num_classes, rngs=rngs, kernel_init=init.zeros, ops=ops
        )

    def __call__(
        self, x: Num[Array, "..."], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B num_classes"]:
        """From features `[B, num_features]` to logits; nothing here is random."""
        check_input(self, x, features=self.config.num_features)
        return self.linear(x)
