"""Our models from PyTorch's layers, images `[B, C, I, I]`, and our weights in their layout."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from zoo.models.convnet import ConvNetConfig
from zoo.models.resnet import ResNetConfig

_NAMES = {
    "kernel": "weight",
    "table": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class ConvNet(nn.Module):
    """`zoo.models.convnet` without dropout."""

    def __init__(self, config: ConvNetConfig):
        super().__init__()
        dims = (config.in_channels, *config.conv_dims)
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(dims)])
        height, width = config.pooled_size
        self.flattened = (height, width, dims[-1])
        self.dense = nn.Linear(height * width * dims[-1], config.dense_dim)
        self.classifier = nn.Linear(config.dense_dim, config.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of `[B, C, I, I]`."""
        for conv in self.convs:
            x = nn.functional.max_pool2d(torch.relu(conv(x)), 2)
        return self.classifier(torch.relu(self.dense(x.flatten(1))))

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take our weights; the first dense layer's rows follow this layout's flattening."""
        rows = weights["dense/kernel"].reshape(*self.flattened, -1).transpose(2, 0, 1, 3)
        reordered = {"dense/kernel": rows.reshape(-1, rows.shape[-1])}
        load(self, {**weights, **reordered})


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(self, in_dim: int, out_dim: int, window: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, window, stride, window // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`norm(conv(x))`."""
        return self.norm(self.conv(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_dim: int, out_dim: int, stride: int):
        super().__init__()
        self.conv1 = ConvNorm(in_dim, out_dim, 3, stride)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, 1)
        changes_shape = stride > 1 or in_dim != out_dim
        self.shortcut = ConvNorm(in_dim, out_dim, 1, stride) if changes_shape else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`relu(shortcut(x) + conv2(relu(conv1(x))))`."""
        y = self.conv2(torch.relu(self.conv1(x)))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """`zoo.models.resnet` with basic blocks and the CIFAR stem."""

    def __init__(self, config: ResNetConfig):
        super().__init__()
        self.stem = ConvNorm(config.in_channels, config.width, 3, 1)
        blocks, dim = [], config.width
        for stage, num_blocks in enumerate(config.stage_sizes):
            for index in range(num_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(BasicBlock(dim, config.width * 2**stage, stride))
                dim = config.width * 2**stage
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(dim, config.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of `[B, C, I, I]`."""
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take our weights."""
        load(self, weights)


def load(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy our weights, named by path, into a module whose attributes have our names."""
    state = {}
    for path, value in weights.items():
        *home, name = path.split("/")
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim, tuple(range(value.ndim)))
        axes = (0, 1) if name == "table" else axes
        converted = np.ascontiguousarray(value.transpose(axes))
        state[".".join([*home, _NAMES[name]])] = torch.from_numpy(converted)
    missing, unknown = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        raise ValueError(f"weights do not fit: {missing=}, {unknown=}")
