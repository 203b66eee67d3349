"""GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners").

    x₀ = E[tokens] + P[0 .. T-1]
    x ← x + attention(norm(x)),   x ← x + W₂ gelu(W₁ norm(x))          in each of L blocks
    logits = norm(x_L) Eᵀ

A decoder with the norm before each part, causal self-attention (Vaswani et al. 2017, eq. 1),
learned positions and the tanh form of GELU. All weights start as N(0, 0.02²); those that write into
the residual stream are divided by √(2L), the number of such additions (section 2.3).

Differs from the paper: GPT-3's alternating sparse attention is dense in its preset here.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from zoo.functional.attention import Mask
from zoo.functional.init import normal
from zoo.functional.ops import Ops
from zoo.layers import Dropout, Embed, FeedForward, LayerNorm, MultiHeadAttention, Stack
from zoo.layers.attention import KVCache
from zoo.layers.check import check_positive, check_rate, check_room, check_tokens


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes of a GPT; the default is `gpt2_small`."""

    vocab_size: int = 50257  # V
    context: int = 1024  # T, the longest sequence
    num_layers: int = 12  # L
    num_heads: int = 12  # N, must divide dim
    dim: int = 768  # D, width of the residual stream; the feed-forward width is four times that
    dropout_rate: float = 0.0  # of embeddings and of what each block adds
    scan: bool = False  # one compiled block for all layers: for deep models
    remat: bool = False  # compute activations again in the backward pass: less memory, more time

    def __post_init__(self):
        sizes = ("vocab_size", "context", "num_layers", "num_heads", "dim")
        check_positive(**{name: getattr(self, name) for name in sizes})
        check_rate(dropout_rate=self.dropout_rate)
        if self.dim % self.num_heads:
            raise ValueError(f"{self.num_heads=} must divide {self.dim=}")

    @classmethod
    def nano(cls) -> "GPTConfig":
        """4 layers for characters: 0.8 million parameters."""
        return cls(vocab_size=128, context=64, num_layers=4, num_heads=4, dim=128)

    @classmethod
    def gpt2_small(cls) -> "GPTConfig":
        """12 layers: 124,439,808 parameters."""
        return cls()

    @classmethod
    def gpt2_medium(cls) -> "GPTConfig":
        """24 layers: 354,823,168 parameters."""
        return cls(num_layers=24, num_heads=16, dim=1024)

    @classmethod
    def gpt2_large(cls) -> "GPTConfig":
        """36 layers: 774,030,080 parameters."""
        return cls(num_layers=36, num_heads=20, dim=1280)

    @classmethod
    def gpt2_xl(cls) -> "GPTConfig":
        """48 layers: 1,557,611,200 parameters."""
        return cls(num_layers=48, num_heads=25, dim=1600, scan=True, remat=True)

    @classmethod
    def gpt3_175b(cls) -> "GPTConfig":
        """96 layers of GPT-3 (Brown et al. 2020, table 2.1): 174.6 billion parameters."""
        return cls(context=2048, num_layers=96, num_heads=96, dim=12288, scan=True, remat=True)

    def for_vocab(self, vocab_size: int) -> "GPTConfig":
        """This config for so many tokens."""
        return replace(self, vocab_size=vocab_size)


class Block(nnx.Module):
    """Attention, then the feed-forward network, each beside an identity."""

    def __init__(self, config: GPTConfig, *, rngs: nnx.Rngs, ops: Ops):
        small = partial(normal, stddev=0.02)
        smaller = partial(normal, stddev=0.02 / math.sqrt(2 * config.num_layers))
        init = {"kernel_init": small, "out_init": smaller, "rngs": rngs, "ops": ops}
        self.norm1 = LayerNorm(config.dim, ops=ops)
        self.attention = MultiHeadAttention(config.dim, config.num_heads, **init)
        self.norm2 = LayerNorm(config.dim, ops=ops)
        self.mlp = FeedForward(config.dim, 4 * config.dim, activation="gelu_tanh", **init)
        self.dropout = Dropout(config.dropout_rate)

    def __call__(self, x: Float[Array, "B T D"], mask, *, rngs: nnx.Rngs | None = None):
        """`x` for the next block; `mask` is the causal one."""
        x = x + self.dropout(self.attention(self.norm1(x), mask), rngs=rngs)
        return x + self.dropout(self.mlp(self.norm2(x)), rngs=rngs)

    def step(self, x: Float[Array, "B T D"], cache: KVCache):
        """The same for the next tokens, without dropout."""
        y, cache = self.attention.step(self.norm1(x), cache)
        x = x + y
        return x + self.mlp(self.norm2(x)), cache


class GPT(nnx.Module):
    """Embeddings, blocks, norm; the output layer is the token table."""

    def __init__(self, config: GPTConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        self.tokens = Embed(config.vocab_size, config.dim, rngs=rngs)
        self.positions = Embed(config.context, config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = Stack(
            lambda: Block(config, rngs=rngs, ops=ops),
            config.num_layers,
            scan=config.scan,
            remat=config.remat,
        )
        self.norm = LayerNorm(config.dim, ops=ops)
        self.dense, self.linear_cross_entropy = ops.dense, ops.linear_cross_entropy

    def __call__(
        self, tokens: Num[Array, "..."], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B T V"]:
        """From tokens [B, T] to logits of what follows each; `rngs` is needed for dropout."""
        return self._logits(self._read(tokens, rngs))

    def losses(
        self,
        tokens: Num[Array, "..."],
        targets: Int[Array, "B T"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B T"]:
        """Cross-entropy of each target, in nats, without the logits of all in memory."""
        x = self.norm(self._read(tokens, rngs))
        return self.linear_cross_entropy(x, self._output_kernel(x), targets)

    def step(self, tokens: Int[Array, "B T"], caches) -> tuple[Float[Array, "B T V"], object]:
        """The same for the next tokens after those in the caches, without dropout.

        A position at or beyond the context has no embedding: the caller keeps within it.
        """
        check_tokens(self, tokens, self.config.vocab_size)
        positions = self.blocks.first(caches).positions(tokens.shape[1])
        x, caches = self.blocks.step(self._embed(tokens, positions), caches)
        return self._logits(x), caches

    def empty_caches(self, batch_size: int, num_tokens: int):
        """Caches for so many tokens a sequence, prompt included, at most the context."""
        config = self.config
        check_room(self, num_tokens, config.context)
        shape = (batch_size, num_tokens, config.num_heads, config.dim // config.num_heads)
        return self.blocks.caches(KVCache.empty(shape))

    def _read(self, tokens: Num[Array, "..."], rngs: nnx.Rngs | None) -> Float[Array, "B T D"]:
        check_tokens(self, tokens, self.config.vocab_size, self.config.context)
        x = self._embed(tokens, jnp.arange(tokens.shape[1])[None])
        return self.blocks(self.dropout(x, rngs=rngs), Mask(causal=True), rngs=rngs)

    def _embed(self, tokens, positions) -> Float[Array, "B T D"]:
        return self.tokens(tokens) + self.positions(positions)

    def _logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return self.dense(self.norm(x), self._output_kernel(x), None)

    def _output_kernel(self, x: Float[Array, "B T D"]) -> Float[Array, "D V"]:
        return self.tokens.table.T.astype(x.dtype)
