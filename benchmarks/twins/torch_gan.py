"""DCGAN from PyTorch's layers, images `[B, C, I, I]`, and our weights in their layout."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from benchmarks.twins.torch_models import load
from zoo.models.gan import GANConfig


class Generator(nn.Module):
    """`zoo.models.gan.Generator` without classes."""

    def __init__(self, config: GANConfig):
        super().__init__()
        dims, side = config.dims[::-1], config.smallest_size
        self.smallest = (dims[0], side, side)
        self.first = nn.Linear(config.latent_dim, side * side * dims[0], bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(dim) for dim in dims])
        self.convs = nn.ModuleList(
            [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(dims)]
        )
        self.convs.append(nn.ConvTranspose2d(dims[-1], config.in_channels, 4, 2, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Images of `[B, Z]`."""
        x = self.first(z).unflatten(1, self.smallest)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(torch.relu(norm(x)))
        return torch.tanh(x)

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take our weights; the first layer's columns follow this layout's axes."""
        channels, side, _ = self.smallest
        columns = weights["first/kernel"].reshape(-1, side, side, channels).transpose(0, 3, 1, 2)
        load(self, {**weights, "first/kernel": columns.reshape(len(columns), -1)})


class Discriminator(nn.Module):
    """`zoo.models.gan.Discriminator` without classes and spectral norm."""

    def __init__(self, config: GANConfig):
        super().__init__()
        dims, batch = (config.in_channels, *config.dims), config.norm == "batch"
        norms = {"batch": nn.BatchNorm2d, "layer": _layer_norm, "none": lambda dim: nn.Identity()}
        self.norms = nn.ModuleList(
            [nn.Identity(), *[norms[config.norm](dim) for dim in config.dims[1:]]]
        )
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(a, b, 4, 2, 1, bias=not (batch and layer))
                for layer, (a, b) in enumerate(pairwise(dims))
            ]
        )
        self.smallest = (dims[-1], config.smallest_size, config.smallest_size)
        self.last = nn.Linear(config.smallest_size**2 * dims[-1], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of `[B, C, I, I]`."""
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nn.functional.leaky_relu(norm(conv(x)), 0.2)
        return self.last(x.flatten(1))[:, 0]

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take our weights; the last layer's rows follow this layout's flattening."""
        channels, side, _ = self.smallest
        rows = weights["last/kernel"].reshape(side, side, channels).transpose(2, 0, 1)
        load(self, {**weights, "last/kernel": rows.reshape(-1, 1)})


def _layer_norm(dim: int) -> nn.Module:
    return nn.GroupNorm(1, dim)


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """`-E[log D(x)] - E[log(1 - D(G(z)))]` from logits."""
    return nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()


def generator_loss(fake: torch.Tensor) -> torch.Tensor:
    """`-E[log D(G(z))]` from logits."""
    return nn.functional.softplus(-fake).mean()
