"""Convolutional network for small images, after LeNet-5 (LeCun et al. 1998).

    images → (3x3 convolution → relu → 2x2 max pool) x L → flatten → dense → relu → dense → logits

Differs from the paper: 3x3 windows instead of 5x5, zero padding so that a convolution keeps the
image's size, relu for tanh, max pooling for weighted averages, a softmax for Gaussian connections,
and dropout (Srivastava et al. 2014) before the last layer if the config asks for it.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from flax import nnx
from jaxtyping import Array, Float, Num

from zoo.functional.activation import relu
from zoo.functional.init import he_normal
from zoo.functional.ops import Ops
from zoo.layers import Conv, Dropout, Linear
from zoo.layers.check import check_data_shape, check_input, check_positive, check_rate


@dataclass(frozen=True, kw_only=True)
class ConvNetConfig:
    """Sizes of a convolutional network; the default is `convnet_32_64`."""

    image_size: tuple[int, int] = (28, 28)  # height, width
    in_channels: int = 1
    conv_dims: tuple[int, ...] = (32, 64)  # channels out of each convolution
    dense_dim: int = 128
    num_classes: int = 10
    dropout_rate: float = 0.0  # before the last layer, in training

    def __post_init__(self):
        check_positive(
            in_channels=self.in_channels,
            conv_dims=self.conv_dims,
            dense_dim=self.dense_dim,
            num_classes=self.num_classes,
        )
        check_rate(dropout_rate=self.dropout_rate)
        if min(self.pooled_size) < 1:
            raise ValueError(
                f"image_size={self.image_size} is too small for {len(self.conv_dims)} poolings, "
                f"each of which halves it; use at least {2 ** len(self.conv_dims)} pixels a side, "
                "or fewer conv_dims"
            )

    @property
    def pooled_size(self) -> tuple[int, int]:
        """Height and width after the last pooling."""
        height, width = self.image_size
        return height // 2 ** len(self.conv_dims), width // 2 ** len(self.conv_dims)

    @classmethod
    def convnet_32_64(cls) -> "ConvNetConfig":
        """Convolutions of 32 and 64 channels, dense layers of 128 and 10: 421,642 parameters."""
        return cls(conv_dims=(32, 64), dense_dim=128)

    @classmethod
    def convnet_64_128(cls) -> "ConvNetConfig":
        """The same with convolutions twice as wide, 64 and 128 channels: 878,730 parameters."""
        return cls(conv_dims=(64, 128), dense_dim=128)

    def for_data(self, input_shape: tuple[int, ...], num_outputs: int) -> "ConvNetConfig":
        """This config for images of shape (height, width, channels) and so many classes."""
        check_data_shape(self, input_shape, 3, "height, width, channels")
        height, width, channels = input_shape
        return replace(
            self, image_size=(height, width), in_channels=channels, num_classes=num_outputs
        )


class ConvNet(nnx.Module):
    """Convolutions find local patterns, pooling forgets where exactly, dense layers decide."""

    def __init__(self, config: ConvNetConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        dims = (config.in_channels, *config.conv_dims)
        self.convs = nnx.List(
            [
                Conv(in_dim, out_dim, 3, rngs=rngs, kernel_init=he_normal, ops=ops)
                for in_dim, out_dim in pairwise(dims)
            ]
        )
        height, width = config.pooled_size
        flat_dim = height * width * dims[-1]
        self.dense = Linear(flat_dim, config.dense_dim, rngs=rngs, kernel_init=he_normal, ops=ops)
        self.dropout = Dropout(config.dropout_rate)
        self.classifier = Linear(config.dense_dim, config.num_classes, rngs=rngs, ops=ops)
        self.max_pool = ops.max_pool

    def __call__(
        self, images: Num[Array, "..."], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B num_classes"]:
        """From `[B, height, width, channels]` to logits; `rngs` is needed when dropout is on."""
        return self.classifier(self.dropout(self.features(images), rngs=rngs))

    def features(self, images: Num[Array, "..."]) -> Float[Array, "B dense_dim"]:
        """What the last layer decides by."""
        height, width = self.config.image_size
        check_input(self, images, height=height, width=width, channels=self.config.in_channels)
        x = images
        for conv in self.convs:
            x = self.max_pool(relu(conv(x)), 2)
        return relu(self.dense(x.reshape(x.shape[0], -1)))
