"""Generative adversarial networks: DCGAN (Radford et al. 2016) and its relatives.

    G: z → dense to a small map → (BN → relu → 4x4 transposed convolution, stride 2) x L → tanh
    D: image → (4x4 convolution, stride 2 → BN → leaky relu) x L → dense → one logit

With classes, G also reads a vector of the class (Mirza & Osindero 2014), and D's logit is

    w·φ(x) + e_y·Σφ(x)                                          (Miyato & Koyama 2018, eq. 4)

with φ the last map, summed over its places for the second term.

Differs from the DCGAN paper: L follows from the side of the image, where the paper has four layers
for 64 pixels; the first and the last convolution, whose windows cover a whole map, are dense layers
here, which is the same product. The layer at an image has no norm, as there.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from zoo.functional.activation import leaky_relu, relu, tanh
from zoo.functional.init import normal
from zoo.functional.ops import Ops
from zoo.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Embed,
    GroupNorm,
    Linear,
    SpectralNorm,
)
from zoo.layers.check import check_choice, check_data_shape, check_input, check_positive

SMALLEST = range(4, 8)  # sides of the map that a generator starts from
small = partial(normal, stddev=0.02)


@dataclass(frozen=True, kw_only=True)
class GANConfig:
    """Sizes of a generator and its discriminator; the default is `dcgan_28`."""

    image_size: int = 28  # the side of a square: 4, 5, 6 or 7 times a power of two
    in_channels: int = 1  # of an image, whose values lie in [-1, 1]
    latent_dim: int = 100  # of z
    width: int = 64  # channels beside the image; each halving of the side doubles them
    num_classes: int | None = None  # None: images without classes
    norm: Literal["batch", "layer", "none"] = "batch"  # of the discriminator
    spectral_norm: bool = False  # of every kernel of the discriminator

    def __post_init__(self):
        check_positive(in_channels=self.in_channels, latent_dim=self.latent_dim, width=self.width)
        if self.num_classes is not None:
            check_positive(num_classes=self.num_classes)
        check_choice(self.norm, ("batch", "layer", "none"), "norm")
        if self.image_size < 8 or self.smallest_size not in SMALLEST:
            sides = sorted(side << n for side in SMALLEST for n in range(1, 6))
            nearest = min(sides, key=lambda side: abs(side - self.image_size))
            raise ValueError(
                f"image_size={self.image_size} is not 4, 5, 6 or 7 doubled once or more, so no map "
                f"grows to it; the nearest such side is {nearest}"
            )

    @property
    def num_layers(self) -> int:
        """How often the side is doubled."""
        side, num_layers = self.image_size, 0
        while side % 2 == 0 and side > SMALLEST[-1]:
            side, num_layers = side // 2, num_layers + 1
        return num_layers

    @property
    def smallest_size(self) -> int:
        """The side of the map that the generator starts from."""
        return self.image_size >> self.num_layers

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels from the image's neighbour to the smallest map."""
        return tuple(self.width << layer for layer in range(self.num_layers))

    @classmethod
    def dcgan_28(cls) -> "GANConfig":
        """For 28 pixels: maps of 7x7x128 and 14x14x64."""
        return cls()

    @classmethod
    def dcgan_64(cls) -> "GANConfig":
        """The paper's, for 64 pixels in colour: maps of 4x4x1024 to 32x32x128 (figure 1)."""
        return cls(image_size=64, in_channels=3, width=128)

    def for_data(self, input_shape: tuple[int, ...], num_classes: int) -> "GANConfig":
        """This config for images of shape (side, side, channels), of so many classes if of any."""
        check_data_shape(self, input_shape, 3, "height, width, channels")
        height, width, channels = input_shape
        if height != width:
            raise ValueError(f"images are {height} x {width} pixels, a GAN wants squares")
        classes = None if self.num_classes is None else num_classes
        return replace(self, image_size=height, in_channels=channels, num_classes=classes)


class Generator(nnx.Module):
    """From noise to images in [-1, 1]."""

    def __init__(self, config: GANConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        dims, classes = config.dims[::-1], config.num_classes
        self.classes = Embed(classes, config.latent_dim, rngs=rngs) if classes else None
        in_dim = config.latent_dim * (2 if classes else 1)
        # A norm takes away the mean, and so any bias before it.
        plain = {"use_bias": False, "kernel_init": small, "rngs": rngs, "ops": ops}
        self.first = Linear(in_dim, config.smallest_size**2 * dims[0], **plain)
        self.norms = nnx.List([BatchNorm(dim, ops=ops) for dim in dims])
        self.convs = nnx.List(
            [ConvTranspose(a, b, 4, strides=2, **plain) for a, b in pairwise(dims)]
        )
        to_image = {**plain, "use_bias": True}
        self.convs.append(ConvTranspose(dims[-1], config.in_channels, 4, strides=2, **to_image))

    def __call__(
        self, z: Num[Array, "..."], labels: Int[Array, " B"] | None = None
    ) -> Float[Array, "B I I C"]:
        """Images from `[B, latent_dim]` standard normal numbers, and their classes if of any."""
        check_input(self, z, latent=self.config.latent_dim)
        _check_labels(self.config, labels)
        if self.classes is not None and labels is not None:
            z = jnp.concatenate([z, self.classes(labels).astype(z.dtype)], axis=-1)
        side = self.config.smallest_size
        x = self.first(z).reshape(z.shape[0], side, side, -1)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(relu(norm(x)))
        return tanh(x)


class Discriminator(nnx.Module):
    """From images to the logit that they are real; without norms, a critic."""

    def __init__(self, config: GANConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        dims = config.dims

        def layer(kind, *sizes, **options):
            made = kind(*sizes, kernel_init=small, rngs=rngs, ops=ops, **options)
            return SpectralNorm(made, rngs=rngs) if config.spectral_norm else made

        def norm(dim):
            if config.norm == "batch":
                return BatchNorm(dim, ops=ops)
            return GroupNorm(dim, num_groups=1, ops=ops) if config.norm == "layer" else None

        self.norms = nnx.List([None, *[norm(dim) for dim in dims[1:]]])
        # Batch norm takes away the mean of a channel, and so any bias before it.
        self.convs = nnx.List(
            [
                layer(Conv, a, b, 4, strides=2, use_bias=not isinstance(norm, BatchNorm))
                for (a, b), norm in zip(
                    pairwise((config.in_channels, *dims)), self.norms, strict=True
                )
            ]
        )
        self.last = layer(Linear, config.smallest_size**2 * dims[-1], 1)
        classes = config.num_classes
        self.classes = Embed(classes, dims[-1], rngs=rngs) if classes else None

    def __call__(
        self, images: Num[Array, "..."], labels: Int[Array, " B"] | None = None
    ) -> Float[Array, " B"]:
        """Logits of images `[B, side, side, channels]` in [-1, 1], and their classes if of any."""
        side, channels = self.config.image_size, self.config.in_channels
        check_input(self, images, height=side, width=side, channels=channels)
        _check_labels(self.config, labels)
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            x = leaky_relu(x if norm is None else norm(x), 0.2)
        logits = self.last(x.reshape(x.shape[0], -1))[:, 0]
        if self.classes is not None and labels is not None:
            logits += jnp.sum(self.classes(labels).astype(x.dtype) * x.sum((1, 2)), axis=-1)
        return logits


class GAN(nnx.Module):
    """A generator and its discriminator, each with parameters of its own."""

    def __init__(self, config: GANConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        self.generator = Generator(config, rngs=rngs, ops=ops)
        self.discriminator = Discriminator(config, rngs=rngs, ops=ops)

    def __call__(
        self, z: Num[Array, "..."], labels: Int[Array, " B"] | None = None
    ) -> Float[Array, "B I I C"]:
        """What the generator makes of `[B, latent_dim]` standard normal numbers."""
        return self.generator(z, labels)


def _check_labels(config: GANConfig, labels: Array | None) -> None:
    if (labels is None) != (config.num_classes is None):
        wants = "no labels" if labels is not None else "a label for each row"
        raise ValueError(f"num_classes={config.num_classes}: this GAN wants {wants}")
