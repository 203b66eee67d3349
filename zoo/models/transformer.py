"""The Transformer (Vaswani et al. 2017, "Attention is all you need"): from one text to another.

    x₀ = √D E[source] + PE,    x ← norm(x + attention(x)),   x ← norm(x + W₂ relu(W₁ x))
    y₀ = √D E[target] + PE,    y ← norm(y + causal attention(y)),
        y ← norm(y + attention(y, x_L)),   y ← norm(y + W₂ relu(W₁ y))
    logits = y_L Eᵀ

An encoder of L blocks that sees the whole source, and a decoder of L blocks that sees the source
and the target so far (figure 1). Positions are sinusoids (section 3.5), so that no length is the
longest. One table E serves source, target and output (section 3.4).

Differs from the paper: with `pre_norm` the norm stands before each part and once after the last
block, which trains without a warm-up of the learning rate (Xiong et al. 2020). W_Q, W_K and W_V are
drawn as one matrix, which makes them smaller by √2. With `pointer` it may also copy what stands in
the source (See et al. 2017, "Get to the point"): what a vocabulary knows too little of.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from zoo.functional.attention import Mask
from zoo.functional.init import normal
from zoo.functional.ops import Ops
from zoo.functional.position import sinusoidal
from zoo.layers import (
    Dropout,
    Embed,
    FeedForward,
    LayerNorm,
    Linear,
    Memory,
    MultiHeadAttention,
    Pointer,
    Stack,
)
from zoo.layers.attention import KVCache
from zoo.layers.check import (
    check_pairs,
    check_positive,
    check_rate,
    check_source_lengths,
    check_tokens,
)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of a Transformer; the default is `base` (table 3)."""

    vocab_size: int = 37000  # V, of the target, and of the source where that has none of its own
    source_vocab_size: int | None = None
    share_tables: bool = True  # one table for source, target and output, else three
    num_layers: int = 6  # L, of the encoder, and as many of the decoder
    num_heads: int = 8  # N, must divide dim
    dim: int = 512  # D, even
    hidden_dim: int = 2048  # F, the feed-forward width
    dropout_rate: float = 0.1  # of the embeddings and of what each part adds
    pre_norm: bool = False  # norm before each part instead of after it
    pointer: bool = False  # may copy tokens of the source; source and target share a vocabulary
    scan: bool = False  # one compiled block for all layers: for deep models
    remat: bool = False  # compute activations again in the backward pass: less memory, more time

    def __post_init__(self):
        sizes = ("vocab_size", "num_layers", "num_heads", "dim", "hidden_dim")
        check_positive(**{name: getattr(self, name) for name in sizes})
        check_rate(dropout_rate=self.dropout_rate)
        if self.dim % self.num_heads or self.dim % 2:
            raise ValueError(f"2 and {self.num_heads=} must divide {self.dim=}")
        if self.share_tables and self.source_vocab_size not in (None, self.vocab_size):
            raise ValueError(
                f"{self.source_vocab_size=} is not {self.vocab_size=}, so that one table cannot "
                "serve both; set share_tables=False"
            )
        if self.pointer and self.source_vocab_size not in (None, self.vocab_size):
            raise ValueError(
                f"pointer=True copies tokens of the source, but {self.source_vocab_size=} is not "
                f"{self.vocab_size=}; set pointer=False"
            )

    @classmethod
    def nano(cls) -> "TransformerConfig":
        """3 + 3 layers of 128 for small sets: 2.4 million parameters at 8000 tokens."""
        return cls(vocab_size=8000, num_layers=3, num_heads=4, dim=128, hidden_dim=512)

    @classmethod
    def base(cls) -> "TransformerConfig":
        """6 + 6 layers of 512: 63 million parameters at 37,000 tokens."""
        return cls()

    @classmethod
    def big(cls) -> "TransformerConfig":
        """6 + 6 layers of 1024: 214 million parameters at 37,000 tokens."""
        return cls(num_heads=16, dim=1024, hidden_dim=4096, dropout_rate=0.3)

    def for_vocab(self, vocab_size: int) -> "TransformerConfig":
        """This config for so many tokens, the same in source and target."""
        return replace(self, vocab_size=vocab_size, source_vocab_size=None)


class DecoderCache(NamedTuple):
    """What a decoder block keeps from step to step.

    The keys and values of the source are computed once, and a search has them once for all of its
    hypotheses. A scan over layers stacks the caches of all along a first axis.
    """

    target: KVCache
    k: Float[Array, "*L B S K H"]  # of the source
    v: Float[Array, "*L B S K H"]
    source_lengths: Int[Array, "*L B"]


Caches = tuple[Any, Memory | None]  # of the blocks, and of the pointer its keys
Logits = Float[Array, "B T V"]


class Residual(nnx.Module):
    """How a part of a block reads from x and adds to it.

    Post-norm: `norm(x + part(x))`, the paper's; pre-norm: `x + part(norm(x))`.
    """

    def __init__(self, config: TransformerConfig, ops: Ops):
        self.norm = LayerNorm(config.dim, ops=ops)
        self.dropout = Dropout(config.dropout_rate)
        self.pre_norm = config.pre_norm

    def read(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What the part sees."""
        return self.norm(x) if self.pre_norm else x

    def add(
        self, x: Float[Array, "B T D"], y: Float[Array, "B T D"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B T D"]:
        """`x` with what the part made of it."""
        x = x + self.dropout(y, rngs=rngs)
        return x if self.pre_norm else self.norm(x)


class EncoderBlock(nnx.Module):
    """Attention, then the feed-forward network."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs, ops: Ops):
        self.attention = MultiHeadAttention(config.dim, config.num_heads, rngs=rngs, ops=ops)
        self.residual1 = Residual(config, ops)
        self.mlp = FeedForward(config.dim, config.hidden_dim, rngs=rngs, ops=ops)
        self.residual2 = Residual(config, ops)

    def __call__(self, x: Float[Array, "B T D"], mask, *, rngs: nnx.Rngs | None = None):
        """`x` for the next block; `mask` hides the padding."""
        x = self.residual1.add(x, self.attention(self.residual1.read(x), mask), rngs)
        return self.residual2.add(x, self.mlp(self.residual2.read(x)), rngs)


class DecoderBlock(nnx.Module):
    """Attention to the target so far, attention to the source, then the feed-forward network."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs, ops: Ops):
        self.attention = MultiHeadAttention(config.dim, config.num_heads, rngs=rngs, ops=ops)
        self.residual1 = Residual(config, ops)
        self.cross = MultiHeadAttention(config.dim, config.num_heads, rngs=rngs, ops=ops)
        self.residual2 = Residual(config, ops)
        self.mlp = FeedForward(config.dim, config.hidden_dim, rngs=rngs, ops=ops)
        self.residual3 = Residual(config, ops)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask,
        memory: Float[Array, "B S D"],
        memory_mask,
        *,
        rngs: nnx.Rngs | None = None,
    ):
        """`x` for the next block; `mask` is the causal one, `memory` the encoded source."""
        x = self.residual1.add(x, self.attention(self.residual1.read(x), mask), rngs)
        y = self.cross(self.residual2.read(x), memory_mask, memory=memory)
        x = self.residual2.add(x, y, rngs)
        return self.residual3.add(x, self.mlp(self.residual3.read(x)), rngs)

    def step(self, x: Float[Array, "B T D"], cache: DecoderCache):
        """The same for the next tokens, without dropout."""
        y, target = self.attention.step(self.residual1.read(x), cache.target)
        x = self.residual1.add(x, y)
        x = self.residual2.add(x, self._look(self.residual2.read(x), cache))
        x = self.residual3.add(x, self.mlp(self.residual3.read(x)))
        return x, cache._replace(target=target)

    def _look(self, x: Float[Array, "B T D"], cache: DecoderCache) -> Float[Array, "B T D"]:
        """Attention to the source; hypotheses of one source, successive rows, ask it together."""
        q = self.cross.queries(x.reshape(cache.k.shape[0], -1, x.shape[-1]))
        mask = Mask(lengths=cache.source_lengths)
        return self.cross.attend(q, cache.k, cache.v, mask).reshape(x.shape)


class Transformer(nnx.Module):
    """The encoder, the decoder, and the tables of their tokens."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        # After the factor √D a token's vector has about the size of its position's.
        init = {"table_init": partial(normal, stddev=config.dim**-0.5), "rngs": rngs}
        self.target = Embed(config.vocab_size, config.dim, **init)
        own = not config.share_tables
        source_size = config.source_vocab_size or config.vocab_size
        out = {"use_bias": False, "rngs": rngs, "ops": ops}
        self.source = Embed(source_size, config.dim, **init) if own else None
        self.output = Linear(config.dim, config.vocab_size, **out) if own else None
        self.dropout = Dropout(config.dropout_rate)

        def stack(block):
            return Stack(
                lambda: block(config, rngs=rngs, ops=ops),
                config.num_layers,
                scan=config.scan,
                remat=config.remat,
            )

        self.encoder, self.decoder = stack(EncoderBlock), stack(DecoderBlock)
        self.encoder_norm = LayerNorm(config.dim, ops=ops) if config.pre_norm else None
        self.decoder_norm = LayerNorm(config.dim, ops=ops) if config.pre_norm else None
        self.pointer = Pointer(config.dim, rngs=rngs, ops=ops) if config.pointer else None
        self.dense = ops.dense

    def __call__(
        self,
        source: Num[Array, "..."],
        target: Num[Array, "..."],
        *,
        source_lengths: Int[Array, "..."] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits of what follows each target token.

        Args:
            source: [B, S].
            target: [B, T], from the start token on. Its padding needs no lengths: it comes after
                all that is real, where the decoder does not look.
            source_lengths: [B], of each source; what follows is padding. None where there is none.
            rngs: needed for dropout.
        """
        return self.decode(target, self.encode(source, source_lengths, rngs=rngs), rngs=rngs)

    def encode(
        self,
        source: Num[Array, "..."],
        source_lengths: Int[Array, "..."] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Memory:
        """A vector for each source token, from all of the source."""
        check_tokens(self, source, self.config.source_vocab_size or self.config.vocab_size)
        check_source_lengths(source_lengths, source.shape[0])
        x = self._embed(self.source or self.target, source, jnp.arange(source.shape[1])[None])
        memory = Memory(x, source, source_lengths)
        x = self.encoder(self.dropout(x, rngs=rngs), memory.mask(), rngs=rngs)
        return replace(memory, vectors=x if self.encoder_norm is None else self.encoder_norm(x))

    def decode(
        self,
        target: Num[Array, "..."],
        memory: Memory,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits of what follows each target token, given the encoded source."""
        check_tokens(self, target, self.config.vocab_size)
        check_pairs(target.shape[0], memory.tokens.shape[0])
        num_tokens = target.shape[1]
        x = self._embed(self.target, target, jnp.arange(num_tokens)[None])
        masks = Mask(causal=True), memory.vectors, memory.mask()
        x = self.decoder(self.dropout(x, rngs=rngs), *masks, rngs=rngs)
        return self._logits(x, self._pointer_keys(memory))

    def step(self, tokens: Int[Array, "B T"], caches: Caches) -> tuple[Logits, Caches]:
        """`decode` for the next target tokens after those in the caches, without dropout."""
        check_tokens(self, tokens, self.config.vocab_size)
        blocks, keys = caches
        target = self.decoder.first(blocks).target
        positions = target.positions(tokens.shape[1])
        x = self._embed(self.target, tokens, positions, num_positions=target.k.shape[1])
        x, blocks = self.decoder.step(x, blocks)
        return self._logits(x, keys), (blocks, keys)

    def empty_caches(self, memory: Memory, num_tokens: int) -> Caches:
        """Caches for so many target tokens, start token included, of these encoded sources."""
        num_sources, source_size = memory.tokens.shape
        lengths = memory.lengths
        lengths = jnp.full(num_sources, source_size) if lengths is None else lengths
        heads = self.config.num_heads, self.config.dim // self.config.num_heads
        target = KVCache.empty((num_sources, num_tokens, *heads), memory.vectors.dtype)

        def cache(block: DecoderBlock) -> DecoderCache:
            k, v = block.cross.keys_and_values(memory.vectors)
            return DecoderCache(target, k, v, lengths)

        return self.decoder.each(cache), self._pointer_keys(memory)

    @property
    def batch_axes(self) -> Any:
        """The axis of the batch in the caches; None for the source, which hypotheses share."""
        block = DecoderCache._make((int(self.config.scan), None, None, None))
        return block if self.config.scan else (block,) * self.config.num_layers, None

    def _embed(
        self, table: Embed, tokens, positions, num_positions: int | None = None
    ) -> Float[Array, "B T D"]:
        signal = sinusoidal(num_positions or tokens.shape[1], self.config.dim)[positions]
        x = math.sqrt(self.config.dim) * table(tokens)
        return x + signal.astype(x.dtype)

    def _logits(self, x: Float[Array, "B T D"], keys: Memory | None) -> Logits:
        x = x if self.decoder_norm is None else self.decoder_norm(x)
        if self.output is not None:
            logits = self.output(x)
        else:
            logits = self.dense(x, self.target.table.T.astype(x.dtype), None)
        return logits if self.pointer is None or keys is None else self.pointer(x, logits, keys)

    def _pointer_keys(self, memory: Memory) -> Memory | None:
        return None if self.pointer is None else self.pointer.keys(memory)
