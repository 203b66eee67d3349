"""GPT from PyTorch's layers, with its fused attention, and our weights in its layout."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.twins.torch_models import load
from zoo.models.gpt import GPTConfig


class Attention(nn.Module):
    """Causal self-attention: one product for query, key and value."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, T, D]` to the same."""
        batch, length, dim = x.shape
        q, k, v = (
            part.view(batch, length, self.num_heads, -1).transpose(1, 2)
            for part in self.qkv(x).split(dim, dim=2)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, dim))


class FeedForward(nn.Module):
    """Two dense layers around the tanh form of GELU."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = nn.Linear(config.dim, 4 * config.dim)
        self.down = nn.Linear(4 * config.dim, config.dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """At every position."""
        return self.down(functional.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Attention, then the feed-forward network, each beside an identity."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.dim), nn.LayerNorm(config.dim)
        self.attention, self.mlp = Attention(config), FeedForward(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` for the next block."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """`zoo.models.gpt` without dropout."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.dim)
        self.positions = nn.Embedding(config.context, config.dim)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits `[B, T, V]`."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take our weights."""
        load(self, {p.replace("blocks/blocks", "blocks"): w for p, w in weights.items()})
