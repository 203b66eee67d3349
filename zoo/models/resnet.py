"""Residual networks (He et al. 2016, "Deep residual learning for image recognition").

    basic block       x → relu(shortcut(x) + BN(conv3x3(relu(BN(conv3x3(x))))))
    bottleneck block  the same around 1x1, 3x3, 1x1 convolutions, the last four times as wide

The shortcut is the identity, or a 1x1 convolution and BN where the shape changes.

Differs from the paper: a bottleneck that halves the image does so in its 3x3 convolution, not in
the first 1x1 (as in all current libraries, "v1.5"); the scale of each block's last BN starts at 0,
so that a block starts as its shortcut (Goyal et al. 2017, sec. 5.1; a config field); with the CIFAR
stem the four stages of the ImageNet networks are kept, where section 4.2 has three narrow ones.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from flax import nnx
from jaxtyping import Array, Float, Num

from zoo.functional.activation import relu
from zoo.functional.init import he_normal
from zoo.functional.ops import Ops
from zoo.functional.pooling import global_avg_pool
from zoo.layers import BatchNorm, Conv, Linear
from zoo.layers.check import (
    check_choice,
    check_data_shape,
    check_input,
    check_positive,
    check_rate,
)


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Sizes of a residual network; the default is `resnet18`."""

    block: Literal["basic", "bottleneck"] = "basic"
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)  # blocks in each stage
    width: int = 64  # channels of the first stage, doubled by each later one
    stem: Literal["imagenet", "cifar"] = "imagenet"  # 7x7 stride 2 and max pool, or 3x3 stride 1
    in_channels: int = 3
    num_classes: int = 1000
    zero_init_last_scale: bool = True  # each block starts as its shortcut
    norm_decay: float = 0.9  # of the running statistics; less when the training is short

    def __post_init__(self):
        check_choice(self.block, ("basic", "bottleneck"), "block")
        check_choice(self.stem, ("imagenet", "cifar"), "stem")
        check_positive(
            stage_sizes=self.stage_sizes,
            width=self.width,
            in_channels=self.in_channels,
            num_classes=self.num_classes,
        )
        if not self.stage_sizes:
            raise ValueError("stage_sizes=() must name at least one stage")
        check_rate(norm_decay=self.norm_decay)

    @classmethod
    def resnet18(cls) -> "ResNetConfig":
        """18 layers: 11,689,512 parameters with 1,000 classes."""
        return cls(block="basic", stage_sizes=(2, 2, 2, 2))

    @classmethod
    def resnet34(cls) -> "ResNetConfig":
        """34 layers: 21,797,672 parameters with 1,000 classes."""
        return cls(block="basic", stage_sizes=(3, 4, 6, 3))

    @classmethod
    def resnet50(cls) -> "ResNetConfig":
        """50 layers: 25,557,032 parameters with 1,000 classes."""
        return cls(block="bottleneck", stage_sizes=(3, 4, 6, 3))

    @classmethod
    def resnet18_cifar(cls) -> "ResNetConfig":
        """18 layers for images of about 32x32 pixels, ten classes."""
        return replace(cls.resnet18(), stem="cifar", num_classes=10)

    @classmethod
    def resnet34_cifar(cls) -> "ResNetConfig":
        """34 layers for images of about 32x32 pixels, ten classes."""
        return replace(cls.resnet34(), stem="cifar", num_classes=10)

    @classmethod
    def resnet50_cifar(cls) -> "ResNetConfig":
        """50 layers for images of about 32x32 pixels, ten classes."""
        return replace(cls.resnet50(), stem="cifar", num_classes=10)

    def for_data(self, input_shape: tuple[int, ...], num_outputs: int) -> "ResNetConfig":
        """This config for images of shape (height, width, channels) and so many classes."""
        check_data_shape(self, input_shape, 3, "height, width, channels")
        return replace(self, in_channels=input_shape[-1], num_classes=num_outputs)


class ConvNorm(nnx.Module):
    """Convolution without bias, then batch norm, whose own bias does that work."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        window: int,
        stride: int = 1,
        *,
        config: ResNetConfig,
        is_last: bool = False,
        rngs: nnx.Rngs,
        ops: Ops,
    ):
        self.conv = Conv(
            in_dim,
            out_dim,
            window,
            strides=stride,
            padding=window // 2,
            use_bias=False,
            kernel_init=he_normal,
            rngs=rngs,
            ops=ops,
        )
        self.norm = BatchNorm(
            out_dim,
            decay=config.norm_decay,
            initial_scale=0.0 if is_last and config.zero_init_last_scale else 1.0,
            ops=ops,
        )

    def __call__(self, x: Float[Array, "B I J C"]) -> Float[Array, "B P Q D"]:
        return self.norm(self.conv(x))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut (figure 2)."""

    expansion = 1  # channels out of the block, over its width

    def __init__(
        self,
        in_dim: int,
        width: int,
        stride: int,
        *,
        config: ResNetConfig,
        rngs: nnx.Rngs,
        ops: Ops,
    ):
        conv = partial(ConvNorm, config=config, rngs=rngs, ops=ops)
        self.conv1 = conv(in_dim, width, 3, stride)
        self.conv2 = conv(width, width, 3, is_last=True)
        changes_shape = stride > 1 or in_dim != width
        self.shortcut = conv(in_dim, width, 1, stride) if changes_shape else None

    def __call__(self, x: Float[Array, "B I J C"]) -> Float[Array, "B P Q D"]:
        y = relu(self.conv1(x))
        y = self.conv2(y)
        return relu(y + (self.shortcut(x) if self.shortcut else x))


class BottleneckBlock(nnx.Module):
    """1x1 down, 3x3, 1x1 up, beside a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(
        self,
        in_dim: int,
        width: int,
        stride: int,
        *,
        config: ResNetConfig,
        rngs: nnx.Rngs,
        ops: Ops,
    ):
        conv = partial(ConvNorm, config=config, rngs=rngs, ops=ops)
        out_dim = self.expansion * width
        self.conv1 = conv(in_dim, width, 1)
        self.conv2 = conv(width, width, 3, stride)
        self.conv3 = conv(width, out_dim, 1, is_last=True)
        changes_shape = stride > 1 or in_dim != out_dim
        self.shortcut = conv(in_dim, out_dim, 1, stride) if changes_shape else None

    def __call__(self, x: Float[Array, "B I J C"]) -> Float[Array, "B P Q D"]:
        y = relu(self.conv1(x))
        y = relu(self.conv2(y))
        y = self.conv3(y)
        return relu(y + (self.shortcut(x) if self.shortcut else x))


class ResNet(nnx.Module):
    """Stem, stages of residual blocks, global average, classifier (table 1)."""

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        block = BasicBlock if config.block == "basic" else BottleneckBlock
        window, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
        dim = config.width
        self.stem = ConvNorm(
            config.in_channels, dim, window, stride, config=config, rngs=rngs, ops=ops
        )
        blocks = []
        for stage, num_blocks in enumerate(config.stage_sizes):
            width = config.width * 2**stage
            for index in range(num_blocks):
                stride = 2 if stage > 0 and index == 0 else 1  # each later stage halves the image
                blocks.append(block(dim, width, stride, config=config, rngs=rngs, ops=ops))
                dim = width * block.expansion
        self.blocks = nnx.List(blocks)
        self.classifier = Linear(dim, config.num_classes, rngs=rngs, ops=ops)
        self.max_pool = ops.max_pool

    def __call__(
        self, images: Num[Array, "..."], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B num_classes"]:
        """From `[B, height, width, channels]` of any size to logits; nothing here is random."""
        check_input(self, images, height=0, width=0, channels=self.config.in_channels)
        x = relu(self.stem(images))
        if self.config.stem == "imagenet":
            x = self.max_pool(x, 3, strides=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return self.classifier(global_avg_pool(x))
