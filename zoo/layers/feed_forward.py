"""The position-wise networks of a Transformer block."""

from flax import nnx
from jaxtyping import Array, Float

from zoo.functional.activation import ACTIVATIONS, silu
from zoo.functional.init import Initializer, glorot_uniform
from zoo.functional.ops import Ops
from zoo.layers.linear import Linear


class FeedForward(nnx.Module):
    """`φ(x W₁ + b₁) W₂ + b₂` at every position (Vaswani et al. 2017, eq. 2, φ = relu)."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        rngs: nnx.Rngs,
        activation: str = "relu",
        kernel_init: Initializer = glorot_uniform,
        out_init: Initializer | None = None,
        ops: Ops = Ops(),
    ):
        self.up = Linear(
            dim, hidden_dim, rngs=rngs, kernel_init=kernel_init, axes=("embed", "mlp"), ops=ops
        )
        self.down = Linear(
            hidden_dim,
            dim,
            rngs=rngs,
            kernel_init=out_init or kernel_init,
            axes=("mlp", "embed"),
            ops=ops,
        )
        self.activation = activation

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class GatedFeedForward(nnx.Module):
    """SwiGLU, `(silu(x W) ⊙ x V) W₂` (Shazeer 2020, eq. 6); W and V are one product, no biases."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        rngs: nnx.Rngs,
        kernel_init: Initializer = glorot_uniform,
        out_init: Initializer | None = None,
        ops: Ops = Ops(),
    ):
        self.up = Linear(
            dim,
            2 * hidden_dim,
            rngs=rngs,
            use_bias=False,
            kernel_init=kernel_init,
            axes=("embed", "mlp"),
            parts=2,
            ops=ops,
        )
        self.down = Linear(
            hidden_dim,
            dim,
            rngs=rngs,
            use_bias=False,
            kernel_init=out_init or kernel_init,
            axes=("mlp", "embed"),
            ops=ops,
        )

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        up = self.up(x)
        return self.down(silu(up[..., 0, :]) * up[..., 1, :])
