"""Llama (Touvron et al. 2023, "LLaMA: Open and efficient foundation language models").

    x₀ = E[tokens]
    x ← x + attention(norm(x)),   x ← x + W₂ (silu(W norm(x)) ⊙ V norm(x))    in each of L blocks
    logits = norm(x_L) W_out

A decoder as GPT-2 is, with the three changes of section 2.2: norms are root-mean-square, the
feed-forward network is SwiGLU, and positions are rotated into queries and keys. No biases. Later
members share each key/value head between several query heads (Ainslie et al. 2023). With
`num_experts` the feed-forward network is a mixture of experts, as in Mixtral (Jiang et al. 2024).

Differs from the paper: weights start as GPT-2's do, as the paper does not say, and there is dropout
for those who set it. Rotation pairs i with i + H/2, as the weights in the format of `transformers`
want; Meta's own pair 2i with 2i + 1. Llama 3.1's stretched positions are left out: the presets are
Llama 3, with 8192 tokens of context.
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
from zoo.functional.position import rotary
from zoo.layers import (
    Dropout,
    Embed,
    Experts,
    GatedFeedForward,
    Linear,
    MultiHeadAttention,
    RMSNorm,
    Stack,
)
from zoo.layers.attention import KVCache, Rotate
from zoo.layers.check import check_positive, check_rate, check_room, check_tokens


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes of a Llama; the default is `llama_8b`."""

    vocab_size: int = 128256  # V
    context: int = 8192  # T, the longest sequence
    num_layers: int = 32  # L
    num_heads: int = 32  # N, must divide dim
    num_kv_heads: int = 8  # K, must divide num_heads
    dim: int = 4096  # D
    hidden_dim: int = 14336  # F, the feed-forward width, of each expert where there are several
    rope_base: float = 500_000.0  # larger turns slower, for longer contexts
    epsilon: float = 1e-5  # of the norms
    tie_embeddings: bool = False  # the output layer is the token table
    num_experts: int = 0  # E, of which each token takes a few; 0 is one network for all
    experts_per_token: int = 2
    dropout_rate: float = 0.0  # of embeddings and of what each block adds
    scan: bool = False  # one compiled block for all layers: for deep models
    remat: bool = False  # compute activations again in the backward pass: less memory, more time

    def __post_init__(self):
        sizes = ("vocab_size", "context", "num_layers", "num_heads", "num_kv_heads", "dim")
        check_positive(**{name: getattr(self, name) for name in (*sizes, "hidden_dim")})
        check_rate(dropout_rate=self.dropout_rate)
        if self.dim % (2 * self.num_heads):
            raise ValueError(
                f"{self.num_heads=} must divide {self.dim=} into heads of even width, as rotation "
                "turns pairs"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_kv_heads=} must divide {self.num_heads=}")
        if self.num_experts and not 1 <= self.experts_per_token <= self.num_experts:
            raise ValueError(f"{self.experts_per_token=} must lie in 1 .. {self.num_experts=}")

    @classmethod
    def nano(cls) -> "LlamaConfig":
        """4 layers for characters: 0.8 million parameters."""
        return cls(
            vocab_size=128, context=64, num_layers=4, num_heads=4, num_kv_heads=2, dim=128,
            hidden_dim=384, rope_base=10_000.0, tie_embeddings=True,
        )  # fmt: skip

    @classmethod
    def smollm2_135m(cls) -> "LlamaConfig":
        """SmolLM2 (Ben Allal et al. 2025): 134,515,008 parameters."""
        return cls(
            vocab_size=49152, num_layers=30, num_heads=9, num_kv_heads=3, dim=576, hidden_dim=1536,
            rope_base=100_000.0, tie_embeddings=True,
        )  # fmt: skip

    @classmethod
    def llama_8b(cls) -> "LlamaConfig":
        """Llama 3 (Grattafiori et al. 2024, table 3): 8,030,261,248 parameters."""
        return cls(scan=True, remat=True)

    @classmethod
    def llama_70b(cls) -> "LlamaConfig":
        """Llama 3, the same table: 70,553,706,496 parameters."""
        return cls(num_layers=80, num_heads=64, dim=8192, hidden_dim=28672, scan=True, remat=True)

    @classmethod
    def mixtral_8x7b(cls) -> "LlamaConfig":
        """Mixtral (Jiang et al. 2024, table 1): 46,702,792,704 parameters, 2 of 8 experts."""
        return cls(
            vocab_size=32000, context=32768, rope_base=1_000_000.0, num_experts=8, scan=True,
            remat=True,
        )  # fmt: skip

    def for_vocab(self, vocab_size: int) -> "LlamaConfig":
        """This config for so many tokens."""
        return replace(self, vocab_size=vocab_size)


class Block(nnx.Module):
    """Attention, then the feed-forward network or experts, each beside an identity."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs, ops: Ops):
        small = partial(normal, stddev=0.02)
        smaller = partial(normal, stddev=0.02 / math.sqrt(2 * config.num_layers))
        init = {"kernel_init": small, "out_init": smaller, "rngs": rngs, "ops": ops}
        self.norm1 = RMSNorm(config.dim, epsilon=config.epsilon, ops=ops)
        self.attention = MultiHeadAttention(
            config.dim,
            config.num_heads,
            num_kv_heads=config.num_kv_heads,
            use_bias=False,
            **init,
        )
        self.norm2 = RMSNorm(config.dim, epsilon=config.epsilon, ops=ops)
        if config.num_experts:
            choice = {
                "num_experts": config.num_experts,
                "experts_per_token": config.experts_per_token,
            }
            self.mlp = Experts(config.dim, config.hidden_dim, **choice, **init)
        else:
            self.mlp = GatedFeedForward(config.dim, config.hidden_dim, **init)
        self.dropout = Dropout(config.dropout_rate)

    def __call__(
        self,
        carry: tuple[Float[Array, "B T D"], Float[Array, ""]],
        mask,
        rotate: Rotate,
        *,
        rngs: nnx.Rngs | None = None,
    ):
        """`x` for the next block, and the sum of all blocks' auxiliary losses so far."""
        x, loss = carry
        y = self.attention(self.norm1(x), mask, rotate=rotate)
        x = x + self.dropout(y, rngs=rngs)
        y, own_loss = self._mlp(self.norm2(x))
        return x + self.dropout(y, rngs=rngs), loss + own_loss

    def step(self, x: Float[Array, "B T D"], cache: KVCache, rotate: Rotate):
        """The same for the next tokens, without dropout and loss."""
        y, cache = self.attention.step(self.norm1(x), cache, rotate=rotate)
        x = x + y
        return x + self._mlp(self.norm2(x))[0], cache

    def _mlp(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T D"], Float[Array, ""]]:
        y = self.mlp(x)
        return y if isinstance(y, tuple) else (y, jnp.zeros(()))


class Llama(nnx.Module):
    """Embeddings, blocks, norm, output layer."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        self.tokens = Embed(config.vocab_size, config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = Stack(
            lambda: Block(config, rngs=rngs, ops=ops),
            config.num_layers,
            scan=config.scan,
            remat=config.remat,
        )
        self.norm = RMSNorm(config.dim, epsilon=config.epsilon, ops=ops)
        out = {"kernel_init": partial(normal, stddev=0.02), "use_bias": False, "ops": ops}
        self.output = (
            None
            if config.tie_embeddings
            else Linear(config.dim, config.vocab_size, rngs=rngs, **out)
        )
        self.dense, self.linear_cross_entropy = ops.dense, ops.linear_cross_entropy

    def __call__(
        self, tokens: Num[Array, "..."], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B T V"]:
        """From tokens [B, T] to logits of what follows each; `rngs` is needed for dropout."""
        return self.with_auxiliary(tokens, rngs=rngs)[0]

    def with_auxiliary(
        self, tokens: Num[Array, "..."], *, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T V"], Float[Array, ""]]:
        """Logits, and the mean over layers of how unevenly experts were chosen (0 without them).

        The latter is `experts_per_token` where they are used evenly.
        """
        x, loss = self._read(tokens, rngs)
        return self._logits(x), loss

    def losses(
        self,
        tokens: Num[Array, "..."],
        targets: Int[Array, "B T"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B T"]:
        """Cross-entropy of each target, in nats, without the logits of all in memory."""
        return self.losses_and_imbalance(tokens, targets, rngs=rngs)[0]

    def losses_and_imbalance(
        self,
        tokens: Num[Array, "..."],
        targets: Int[Array, "B T"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "B T"], Float[Array, ""]]:
        """The same, and the imbalance of `with_auxiliary`.

        Training adds a little of the latter, so that all experts are used.
        """
        x, imbalance = self._read(tokens, rngs)
        x = self.norm(x)
        return self.linear_cross_entropy(x, self._output_kernel(x), targets), imbalance

    def step(self, tokens: Int[Array, "B T"], caches) -> tuple[Float[Array, "B T V"], object]:
        """The same for the next tokens after those in the caches, without dropout."""
        check_tokens(self, tokens, self.config.vocab_size)
        rotate = self._rotate(self.blocks.first(caches).positions(tokens.shape[1]))
        x, caches = self.blocks.step(self.tokens(tokens), caches, rotate)
        return self._logits(x), caches

    def empty_caches(self, batch_size: int, num_tokens: int):
        """Caches for so many tokens a sequence, prompt included, at most the context."""
        config = self.config
        check_room(self, num_tokens, config.context)
        shape = (batch_size, num_tokens, config.num_kv_heads, config.dim // config.num_heads)
        return self.blocks.caches(KVCache.empty(shape))

    def _read(
        self, tokens: Num[Array, "..."], rngs: nnx.Rngs | None
    ) -> tuple[Float[Array, "B T D"], Float[Array, ""]]:
        check_tokens(self, tokens, self.config.vocab_size, self.config.context)
        x = self.dropout(self.tokens(tokens), rngs=rngs)
        rotate = self._rotate(jnp.arange(tokens.shape[1])[None])
        x, loss = self.blocks((x, jnp.zeros(())), Mask(causal=True), rotate, rngs=rngs)
        return x, loss / self.config.num_layers

    def _rotate(self, positions: Int[Array, "#B T"]) -> Rotate:
        return partial(rotary, positions=positions, base=self.config.rope_base)

    def _logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        return self.dense(self.norm(x), self._output_kernel(x), None)

    def _output_kernel(self, x: Float[Array, "B T D"]) -> Float[Array, "D V"]:
        kernel = self.tokens.table.T if self.output is None else self.output.kernel[...]
        return kernel.astype(x.dtype)
