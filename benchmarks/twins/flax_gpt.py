"""GPT from stock `flax.nnx` layers, and our weights by its names."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.gpt import GPTConfig


class Block(nnx.Module):
    """Attention, then the feed-forward network, each beside an identity."""

    def __init__(self, config: GPTConfig, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(config.dim, epsilon=1e-5, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            config.num_heads, config.dim, decode=False, rngs=rngs
        )
        self.norm2 = nnx.LayerNorm(config.dim, epsilon=1e-5, rngs=rngs)
        self.up = nnx.Linear(config.dim, 4 * config.dim, rngs=rngs)
        self.down = nnx.Linear(4 * config.dim, config.dim, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=True))


class GPT(nnx.Module):
    """`zoo.models.gpt` without dropout."""

    def __init__(self, config: GPTConfig, rngs: nnx.Rngs):
        self.config = config
        self.tokens = nnx.Embed(config.vocab_size, config.dim, rngs=rngs)
        self.positions = nnx.Embed(config.context, config.dim, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.num_layers)])
        self.norm = nnx.LayerNorm(config.dim, epsilon=1e-5, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.tokens.attend(self.norm(x))

    def convert(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Our weights by this module's paths: query, key and value apart, and split into heads."""
        heads, dim = self.config.num_heads, self.config.dim
        found = {}
        for path, value in weights.items():
            path = path.replace("table", "embedding").replace("blocks/blocks", "blocks")
            path = path.replace("/mlp/", "/")
            if "/qkv/" in path:
                for name, part in zip(
                    ("query", "key", "value"), np.split(value, 3, -1), strict=True
                ):
                    found[path.replace("qkv", name)] = part.reshape(*part.shape[:-1], heads, -1)
            elif path.endswith("/out/kernel"):
                found[path] = value.reshape(heads, -1, dim)
            else:
                found[path] = value
        return found
