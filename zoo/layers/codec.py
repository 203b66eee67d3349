"""A stack of layers from data to a vector, and its mirror image: what autoencoders are made of."""

import math
from itertools import pairwise

from flax import nnx
from jaxtyping import Array, Float

from zoo.functional.activation import ACTIVATIONS
from zoo.functional.init import he_normal
from zoo.functional.ops import Ops
from zoo.layers.conv import Conv, ConvTranspose
from zoo.layers.linear import Linear

WINDOW = 4  # pixels; with stride 2 every output sees equally many inputs


def check_halvings(shape: tuple[int, ...], num_halvings: int) -> None:
    """Raise ValueError unless the sides of an image can be halved, and doubled again, so often."""
    if num_halvings and len(shape) != 3:
        raise ValueError(
            f"convolutions want images (height, width, channels), inputs are of shape {shape}; "
            "use conv_dims=()"
        )
    for side in shape[:2] if num_halvings else ():
        if side % 2**num_halvings:
            fits = max(side // 2**num_halvings, 1) * 2**num_halvings
            raise ValueError(
                f"a side of {side} pixels cannot be halved {num_halvings} times and doubled again; "
                f"use {fits} pixels, or fewer conv_dims"
            )


class Encoder(nnx.Module):
    """(4x4 convolution of stride 2 → φ) x L → flatten → (dense → φ) x M."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        conv_dims: tuple[int, ...],
        hidden_dims: tuple[int, ...],
        activation: str,
        *,
        rngs: nnx.Rngs,
        ops: Ops = Ops(),
    ):
        check_halvings(input_shape, len(conv_dims))
        drawn = {"kernel_init": he_normal, "rngs": rngs, "ops": ops}
        self.convs = nnx.List(
            [
                Conv(a, b, WINDOW, strides=2, **drawn)
                for a, b in pairwise((input_shape[-1], *conv_dims))
            ]
        )
        widths = (math.prod(smallest_map(input_shape, conv_dims)), *hidden_dims)
        self.hidden = nnx.List([Linear(a, b, **drawn) for a, b in pairwise(widths)])
        self.out_dim = widths[-1]
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Float[Array, "B *I"]) -> Float[Array, "B out_dim"]:
        for conv in self.convs:
            x = self.activation(conv(x))
        x = x.reshape(x.shape[0], -1)
        for linear in self.hidden:
            x = self.activation(linear(x))
        return x


class Decoder(nnx.Module):
    """(dense → φ) x M → dense → (φ → 4x4 transposed convolution of stride 2) x L, the way back."""

    def __init__(
        self,
        in_dim: int,
        output_shape: tuple[int, ...],
        conv_dims: tuple[int, ...],
        hidden_dims: tuple[int, ...],
        activation: str,
        *,
        rngs: nnx.Rngs,
        ops: Ops = Ops(),
    ):
        check_halvings(output_shape, len(conv_dims))
        drawn = {"kernel_init": he_normal, "rngs": rngs, "ops": ops}
        self.map_shape = smallest_map(output_shape, conv_dims)
        widths = (in_dim, *hidden_dims[::-1], math.prod(self.map_shape))
        self.hidden = nnx.List([Linear(a, b, **drawn) for a, b in pairwise(widths)])
        self.convs = nnx.List(
            [
                ConvTranspose(a, b, WINDOW, strides=2, **drawn)
                for a, b in pairwise((*conv_dims[::-1], output_shape[-1]))
            ]
        )
        self.activation = ACTIVATIONS[activation]

    def __call__(self, code: Float[Array, "B in_dim"]) -> Float[Array, "B *I"]:
        """What stands before the output's own activation, in the shape of the data."""
        x = code
        for linear in self.hidden[:-1]:
            x = self.activation(linear(x))
        x = self.hidden[-1](x).reshape(x.shape[0], *self.map_shape)
        for conv in self.convs:
            x = conv(self.activation(x))
        return x


def smallest_map(shape: tuple[int, ...], conv_dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what the last convolution gives: the data's own where there is none."""
    if not conv_dims:
        return shape
    height, width, _ = shape
    return (height >> len(conv_dims), width >> len(conv_dims), conv_dims[-1])
