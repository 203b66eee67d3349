"""The dropout layer."""

from flax import nnx
from jaxtyping import Array, Float

from zoo.functional.dropout import dropout
from zoo.layers.check import check_rate


class Dropout(nnx.Module):
    """Zeroes a fraction `rate` of its input in training and scales the rest up by `1 / (1 - rate)`.

    Nothing is dropped in a view with `deterministic=True`. The key comes with each call, from the
    stream `dropout` of `rngs`; the layer holds no random state.
    """

    def __init__(self, rate: float):
        check_rate(rate=rate)
        self.rate = rate
        self.deterministic = False

    def __call__(
        self, x: Float[Array, "*S"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*S"]:
        if self.deterministic or self.rate == 0:
            return x
        if rngs is None:
            raise ValueError(
                f"dropout at rate {self.rate} needs random numbers: call the model with "
                "rngs=nnx.Rngs(dropout=seed), or switch dropout off with "
                "nnx.view(model, deterministic=True)"
            )
        return dropout(x, rngs.dropout(), self.rate)

    def set_view(self, deterministic: bool | None = None):
        """For `nnx.view`: `deterministic=True` switches dropout off."""
        if deterministic is not None:
            self.deterministic = deterministic
