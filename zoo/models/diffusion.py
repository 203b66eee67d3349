"""The network of diffusion models: a U-Net that knows the time (Ho et al. 2020, appendix B).

    e = W₂ silu(W₁ sinusoids(1000 t))                               + a vector of the class
    block(x, e) = x + conv(silu(norm(conv(silu(norm(x))) + W silu(e))))
    attention(x) = x + W_O attention(norm(x))                       over all places of the map

    image → conv → (block x N → halve) x L → block, attention, block
          → (block x (N+1) on [x, what the way down had there] → double) x L → norm → silu → conv

Differs from the paper: squares of `patch_size` pixels are channels of one place (Hoogeboom et al.
2023, "Simple diffusion", section 3), which makes each look at a small image several times as cheap.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from zoo.functional.activation import silu
from zoo.functional.init import glorot_uniform, zeros
from zoo.functional.ops import Ops
from zoo.functional.position import sinusoids
from zoo.functional.resize import depth_to_space, space_to_depth, upsample
from zoo.layers import Conv, Dropout, Embed, GroupNorm, Linear, MultiHeadAttention
from zoo.layers.check import check_data_shape, check_input, check_positive, check_rate

TIME_SCALE = 1000  # the sinusoids were made for whole steps from 0 to this


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of a U-Net; the default is `digits`."""

    image_size: int = 28  # the side of a square
    in_channels: int = 1
    patch_size: int = 2  # pixels to a side of what is one place for the network
    width: int = 32  # channels of the largest map
    multipliers: tuple[int, ...] = (1, 2)  # of the width, a level; each level halves the side
    num_blocks: int = 1  # N, on the way down; one more on the way up
    attention: tuple[bool, ...] = (False, True)  # whether a level's blocks are followed by it
    num_heads: int = 1
    num_groups: int = 8  # of every norm
    dropout_rate: float = 0.0  # within blocks, in training
    num_classes: int | None = None  # None: images without classes

    def __post_init__(self):
        check_positive(
            image_size=self.image_size,
            in_channels=self.in_channels,
            patch_size=self.patch_size,
            width=self.width,
            multipliers=self.multipliers,
            num_blocks=self.num_blocks,
            num_heads=self.num_heads,
            num_groups=self.num_groups,
        )
        if self.num_classes is not None:
            check_positive(num_classes=self.num_classes)
        check_rate(dropout_rate=self.dropout_rate)
        if len(self.attention) != len(self.multipliers):
            raise ValueError(
                f"attention={self.attention} has {len(self.attention)} entries for "
                f"{len(self.multipliers)} levels"
            )
        fewest = self.patch_size * 2 ** (len(self.multipliers) - 1)
        if self.image_size % fewest:
            raise ValueError(
                f"image_size={self.image_size} must be a multiple of {fewest}: "
                f"patch_size={self.patch_size}, and {len(self.multipliers)} levels, each half the "
                "one before"
            )
        for name, parts in (("num_groups", self.num_groups), ("num_heads", self.num_heads)):
            if self.width % parts:
                raise ValueError(f"{name}={parts} must divide width={self.width}")

    @classmethod
    def digits(cls) -> "UNetConfig":
        """For 28 pixels: maps of 14x14x32 and 7x7x64."""
        return cls()

    @classmethod
    def cifar10(cls) -> "UNetConfig":
        """The paper's for 32 pixels in colour: four levels of 128, 256, 256, 256."""
        return cls(
            image_size=32,
            in_channels=3,
            patch_size=1,
            width=128,
            multipliers=(1, 2, 2, 2),
            attention=(False, True, False, False),
            num_blocks=2,
            num_groups=32,
            dropout_rate=0.1,
        )

    def for_data(self, input_shape: tuple[int, ...], num_classes: int) -> "UNetConfig":
        """This config for images of shape (side, side, channels), of so many classes if of any."""
        check_data_shape(self, input_shape, 3, "height, width, channels")
        height, width, channels = input_shape
        if height != width:
            raise ValueError(f"images are {height} x {width} pixels, this U-Net wants squares")
        classes = None if self.num_classes is None else num_classes
        return replace(self, image_size=height, in_channels=channels, num_classes=classes)


class Block(nnx.Module):
    """Two convolutions around which the input goes straight on, and attention where asked."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        config: UNetConfig,
        *,
        attention: bool,
        rngs: nnx.Rngs,
        ops: Ops = Ops(),
    ):
        drawn = {"kernel_init": glorot_uniform, "rngs": rngs, "ops": ops}
        groups = {"num_groups": config.num_groups, "ops": ops}
        self.norm1 = GroupNorm(in_dim, **groups)
        self.conv1 = Conv(in_dim, out_dim, 3, **drawn)
        self.time = Linear(4 * config.width, out_dim, **drawn)
        self.norm2 = GroupNorm(out_dim, **groups)
        self.dropout = Dropout(config.dropout_rate)
        # At first a block is the identity.
        self.conv2 = Conv(out_dim, out_dim, 3, **{**drawn, "kernel_init": zeros})
        self.straight = Conv(in_dim, out_dim, 1, **drawn) if in_dim != out_dim else None
        self.norm3 = GroupNorm(out_dim, **groups) if attention else None
        self.attention = (
            MultiHeadAttention(out_dim, config.num_heads, out_init=zeros, **drawn)
            if attention
            else None
        )

    def __call__(
        self, x: Float[Array, "B I I C"], time: Float[Array, "B E"], *, rngs: nnx.Rngs | None
    ) -> Float[Array, "B I I D"]:
        y = self.conv1(silu(self.norm1(x))) + self.time(silu(time))[:, None, None]
        y = self.conv2(self.dropout(silu(self.norm2(y)), rngs=rngs))
        x = y + (x if self.straight is None else self.straight(x))
        if self.norm3 is not None and self.attention is not None:
            places = self.norm3(x).reshape(x.shape[0], -1, x.shape[-1])
            x += self.attention(places).reshape(x.shape)
        return x


class Level(nnx.Module):
    """Blocks at one size of the map, and the convolution on the way to the next, if any."""

    def __init__(self, blocks: list[Block], resample: Conv | None):
        self.blocks = nnx.List(blocks)
        self.resample = resample


class UNet(nnx.Module):
    """From a noisy image and its time to what is to be known of it, in the shape of the image."""

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        drawn = {"kernel_init": glorot_uniform, "rngs": rngs, "ops": ops}
        channels = config.patch_size**2 * config.in_channels
        width, time_dim = config.width, 4 * config.width
        dims = [width * multiplier for multiplier in config.multipliers]
        last = len(dims) - 1

        def block(in_dim: int, out_dim: int, attention: bool) -> Block:
            return Block(in_dim, out_dim, config, attention=attention, rngs=rngs, ops=ops)

        self.time1 = Linear(width, time_dim, **drawn)
        self.time2 = Linear(time_dim, time_dim, **drawn)
        # One more than there are classes: an image of which no class is told.
        self.classes = (
            Embed(config.num_classes + 1, time_dim, rngs=rngs) if config.num_classes else None
        )
        self.first = Conv(channels, width, 3, **drawn)
        skips, dim, down = [width], width, []
        for level, (out_dim, attention) in enumerate(zip(dims, config.attention, strict=True)):
            blocks = []
            for _ in range(config.num_blocks):
                blocks.append(block(dim, out_dim, attention))
                dim = out_dim
                skips.append(dim)
            halve = None
            if level < last:
                halve = Conv(dim, dim, 3, strides=2, padding=1, **drawn)
                skips.append(dim)
            down.append(Level(blocks, halve))
        self.down = nnx.List(down)
        self.middle = nnx.List([block(dim, dim, True), block(dim, dim, False)])
        up = []
        for level in range(last, -1, -1):
            blocks = []
            for _ in range(config.num_blocks + 1):
                blocks.append(block(dim + skips.pop(), dims[level], config.attention[level]))
                dim = dims[level]
            up.append(Level(blocks, Conv(dim, dim, 3, **drawn) if level else None))
        self.up = nnx.List(up)
        self.norm = GroupNorm(width, num_groups=config.num_groups, ops=ops)
        self.last = Conv(width, channels, 3, **{**drawn, "kernel_init": zeros})

    def __call__(
        self,
        x: Num[Array, "..."],
        t: Float[Array, " B"],
        labels: Int[Array, " B"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B I I C"]:
        """What a diffusion model wants to know of `[B, side, side, channels]`.

        Args:
            x: noisy images.
            t: times from 0 to 1.
            labels: classes; `num_classes` stands for none told.
            rngs: needed when dropout is on.
        """
        config = self.config
        side = config.image_size
        check_input(self, x, height=side, width=side, channels=config.in_channels)
        if self.classes is None and labels is not None:
            raise ValueError("num_classes=None: this U-Net wants no labels")
        time = self.time2(silu(self.time1(sinusoids(TIME_SCALE * t, config.width).astype(x.dtype))))
        if self.classes is not None and config.num_classes is not None:
            told = jnp.full(x.shape[0], config.num_classes) if labels is None else labels
            time += self.classes(told).astype(x.dtype)
        x = self.first(space_to_depth(x, config.patch_size))
        skips = [x]
        for level in self.down:
            for block in level.blocks:
                x = block(x, time, rngs=rngs)
                skips.append(x)
            if level.resample is not None:
                x = level.resample(x)
                skips.append(x)
        for block in self.middle:
            x = block(x, time, rngs=rngs)
        for level in self.up:
            for block in level.blocks:
                x = block(jnp.concatenate([x, skips.pop()], axis=-1), time, rngs=rngs)
            if level.resample is not None:
                x = level.resample(upsample(x))
        return depth_to_space(self.last(silu(self.norm(x))), config.patch_size)
