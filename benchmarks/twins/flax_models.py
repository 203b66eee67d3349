"""Our models from stock `flax.nnx` layers."""

from itertools import pairwise

import jax
from flax import nnx

from zoo.models.convnet import ConvNetConfig
from zoo.models.resnet import ResNetConfig


class ConvNet(nnx.Module):
    """`zoo.models.convnet` without dropout."""

    def __init__(self, config: ConvNetConfig, rngs: nnx.Rngs):
        dims = (config.in_channels, *config.conv_dims)
        self.convs = nnx.List([nnx.Conv(i, o, (3, 3), rngs=rngs) for i, o in pairwise(dims)])
        height, width = config.pooled_size
        self.dense = nnx.Linear(height * width * dims[-1], config.dense_dim, rngs=rngs)
        self.classifier = nnx.Linear(config.dense_dim, config.num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in self.convs:
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
        x = nnx.relu(self.dense(x.reshape(x.shape[0], -1)))
        return self.classifier(x)


class ConvNorm(nnx.Module):
    """Convolution without bias, then batch norm."""

    def __init__(self, in_dim: int, out_dim: int, window: int, stride: int, rngs: nnx.Rngs):
        self.conv = nnx.Conv(
            in_dim,
            out_dim,
            (window, window),
            strides=stride,
            padding=window // 2,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(out_dim, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_dim: int, out_dim: int, stride: int, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(in_dim, out_dim, 3, stride, rngs)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, 1, rngs)
        changes_shape = stride > 1 or in_dim != out_dim
        self.shortcut = ConvNorm(in_dim, out_dim, 1, stride, rngs) if changes_shape else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv2(nnx.relu(self.conv1(x)))
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


class ResNet(nnx.Module):
    """`zoo.models.resnet` with basic blocks and the CIFAR stem."""

    def __init__(self, config: ResNetConfig, rngs: nnx.Rngs):
        self.stem = ConvNorm(config.in_channels, config.width, 3, 1, rngs)
        blocks, dim = [], config.width
        for stage, num_blocks in enumerate(config.stage_sizes):
            for index in range(num_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(BasicBlock(dim, config.width * 2**stage, stride, rngs))
                dim = config.width * 2**stage
        self.blocks = nnx.List(blocks)
        self.classifier = nnx.Linear(dim, config.num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((1, 2)))
