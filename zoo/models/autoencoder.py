"""Autoencoder (Hinton & Salakhutdinov 2006): through a narrow code and back.

    code = E(x),   x̂ = D(code),   trained to make ‖x̂ - x‖² small

E is convolutions of stride 2, then dense layers, and D is their mirror image (`zoo.layers.codec`);
without convolutions both are dense, as in the paper. Fed with x + noise while x is wanted, it is a
denoising autoencoder (Vincent et al. 2010).

Differs from the paper: layers are trained together from random weights, where the paper trained
them one by one before; the units are relus and the output is linear, where the paper's are
logistic: with the squared error, a logistic output that is sure of black hardly learns of white.
"""

from dataclasses import dataclass, replace

from flax import nnx
from jaxtyping import Array, Float, Num

from zoo.functional.activation import ACTIVATIONS
from zoo.functional.ops import Ops
from zoo.layers import Decoder, Encoder, Linear
from zoo.layers.check import check_choice, check_input, check_positive, named_axes
from zoo.layers.codec import check_halvings


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of an encoder; the decoder mirrors them."""

    input_shape: tuple[int, ...] = (28, 28, 1)  # of one example
    code_dim: int = 32
    conv_dims: tuple[int, ...] = (32, 64)  # channels; each convolution halves the side
    hidden_dims: tuple[int, ...] = ()  # widths of dense layers between convolutions and code
    activation: str = "relu"  # a name in zoo.functional.activation.ACTIVATIONS

    def __post_init__(self):
        check_positive(
            input_shape=self.input_shape,
            code_dim=self.code_dim,
            conv_dims=self.conv_dims,
            hidden_dims=self.hidden_dims,
        )
        check_choice(self.activation, tuple(ACTIVATIONS), "activation")
        check_halvings(self.input_shape, len(self.conv_dims))

    @classmethod
    def convolutional(cls) -> "AutoencoderConfig":
        """28x28 → 14x14x32 → 7x7x64 → a code of 32."""
        return cls()

    @classmethod
    def dense(cls) -> "AutoencoderConfig":
        """784-1000-500-250-30, the paper's for digits."""
        return cls(conv_dims=(), hidden_dims=(1000, 500, 250), code_dim=30)

    def for_data(self, input_shape: tuple[int, ...], num_outputs: int) -> "AutoencoderConfig":
        """This config for examples of that shape, which are their own targets."""
        del num_outputs
        return replace(self, input_shape=input_shape)


class Autoencoder(nnx.Module):
    """An encoder to a code, and a decoder back."""

    def __init__(self, config: AutoencoderConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        sizes = config.input_shape, config.conv_dims, config.hidden_dims, config.activation
        self.encoder = Encoder(*sizes, rngs=rngs, ops=ops)
        self.to_code = Linear(self.encoder.out_dim, config.code_dim, rngs=rngs, ops=ops)
        self.decoder = Decoder(config.code_dim, *sizes, rngs=rngs, ops=ops)

    def __call__(self, x: Num[Array, "..."]) -> Float[Array, "B *I"]:
        """From `[B, *input_shape]` to what the code tells of it."""
        return self.decode(self.encode(x))

    def encode(self, x: Num[Array, "..."]) -> Float[Array, "B code_dim"]:
        """The codes of `[B, *input_shape]`."""
        check_input(self, x, **named_axes(self.config.input_shape))
        return self.to_code(self.encoder(x))

    def decode(self, code: Float[Array, "B code_dim"]) -> Float[Array, "B *I"]:
        """What codes stand for."""
        return self.decoder(code)
