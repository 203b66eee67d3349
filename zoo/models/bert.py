"""BERT (Devlin et al. 2019, "BERT: Pre-training of deep bidirectional transformers").

    x₀ = norm(E[tokens] + P[0 .. T-1] + S[segments])
    x ← norm(x + attention(x)),   x ← norm(x + W₂ gelu(W₁ x))          in each of L blocks

An encoder with the norm after each part ("post-norm", Vaswani et al. 2017, section 3.1), where
every token sees every other that is not padding, learned positions and the erf form of GELU. All
weights start as a normal of 0.02 cut off at two standard deviations.

The heads (section 3.1 and figure 4) are modules of their own, which take what the encoder gives:
`MaskedWords` predicts hidden words, `Classifier` labels a text, `Tagger` each token, and `Spans`
finds an answer's first and last token.

Differs from the paper: no dropout of the attention weights, only of the embeddings and of what each
part of a block adds.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from zoo.functional.activation import gelu_erf, tanh
from zoo.functional.attention import Mask
from zoo.functional.init import truncated_normal
from zoo.functional.ops import Ops
from zoo.layers import Dropout, Embed, FeedForward, LayerNorm, Linear, MultiHeadAttention, Stack
from zoo.layers.check import check_positive, check_rate, check_tokens

EPSILON = 1e-12  # of every norm; the published weights were trained with it


@dataclass(frozen=True, kw_only=True)
class BERTConfig:
    """Sizes of a BERT; the default is `base`."""

    vocab_size: int = 30522  # V
    context: int = 512  # T, the longest text
    num_segments: int = 2  # what a text may be joined from, such as a question and a passage
    num_layers: int = 12  # L
    num_heads: int = 12  # N, must divide dim
    dim: int = 768  # D
    hidden_dim: int = 3072  # F, the feed-forward width
    dropout_rate: float = 0.1  # of embeddings, of what each part adds, and before the heads
    pooled: bool = True  # has the layer that makes one vector of a text; only `Classifier` uses it
    scan: bool = False  # one compiled block for all layers: for deep models
    remat: bool = False  # compute activations again in the backward pass: less memory, more time

    def __post_init__(self):
        sizes = ("vocab_size", "context", "num_segments", "num_layers", "num_heads", "dim")
        check_positive(**{name: getattr(self, name) for name in (*sizes, "hidden_dim")})
        check_rate(dropout_rate=self.dropout_rate)
        if self.dim % self.num_heads:
            raise ValueError(f"{self.num_heads=} must divide {self.dim=}")

    @classmethod
    def nano(cls) -> "BERTConfig":
        """4 layers of 128 for small texts: 1.9 million parameters at 8000 words."""
        return cls(vocab_size=8000, context=128, num_layers=4, num_heads=4, dim=128, hidden_dim=512)

    @classmethod
    def minilm(cls) -> "BERTConfig":
        """6 layers of 384 (Wang et al. 2020, "MiniLM"): 22,713,216 parameters."""
        return cls(num_layers=6, dim=384, hidden_dim=1536)

    @classmethod
    def base(cls) -> "BERTConfig":
        """12 layers: 109,482,240 parameters."""
        return cls()

    @classmethod
    def large(cls) -> "BERTConfig":
        """24 layers: 335,141,888 parameters."""
        return cls(num_layers=24, num_heads=16, dim=1024, hidden_dim=4096, scan=True)

    def for_vocab(self, vocab_size: int) -> "BERTConfig":
        """This config for so many tokens."""
        return replace(self, vocab_size=vocab_size)


class Block(nnx.Module):
    """Attention, then the feed-forward network, each beside an identity and before a norm."""

    def __init__(self, config: BERTConfig, *, rngs: nnx.Rngs, ops: Ops):
        dim, init = config.dim, {"kernel_init": truncated_normal, "rngs": rngs, "ops": ops}
        self.attention = MultiHeadAttention(dim, config.num_heads, **init)
        self.norm1 = LayerNorm(dim, epsilon=EPSILON, ops=ops)
        self.mlp = FeedForward(dim, config.hidden_dim, activation="gelu_erf", **init)
        self.norm2 = LayerNorm(dim, epsilon=EPSILON, ops=ops)
        self.dropout = Dropout(config.dropout_rate)

    def __call__(self, x: Float[Array, "B T D"], mask, *, rngs: nnx.Rngs | None = None):
        """`x` for the next block; `mask` hides the padding."""
        x = self.norm1(x + self.dropout(self.attention(x, mask), rngs=rngs))
        return self.norm2(x + self.dropout(self.mlp(x), rngs=rngs))


class BERT(nnx.Module):
    """The encoder: embeddings and blocks; the heads below come after it."""

    def __init__(self, config: BERTConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        init = {"table_init": truncated_normal, "rngs": rngs}
        self.tokens = Embed(config.vocab_size, config.dim, **init)
        self.positions = Embed(config.context, config.dim, **init)
        self.segments = Embed(config.num_segments, config.dim, **init)
        self.norm = LayerNorm(config.dim, epsilon=EPSILON, ops=ops)
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = Stack(
            lambda: Block(config, rngs=rngs, ops=ops),
            config.num_layers,
            scan=config.scan,
            remat=config.remat,
        )
        self.pooler = (
            Linear(config.dim, config.dim, rngs=rngs, kernel_init=truncated_normal, ops=ops)
            if config.pooled
            else None
        )

    def __call__(
        self,
        tokens: Num[Array, "..."],
        lengths: Int[Array, "..."] | None = None,
        segments: Int[Array, "..."] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B T D"]:
        """A vector for each token, from all tokens before and after it.

        Args:
            tokens: [B, T].
            lengths: [B], of each text; what follows is padding, which no token sees, and whose own
                vectors mean nothing. None where there is no padding.
            segments: [B, T], the part of the text that each token is in; all in part 0 by default.
            rngs: needed for dropout.
        """
        check_tokens(self, tokens, self.config.vocab_size, self.config.context)
        _check_shape("lengths", lengths, tokens.shape[:1])
        _check_shape("segments", segments, tokens.shape)
        num_tokens = tokens.shape[1]
        x = self.tokens(tokens) + self.positions(jnp.arange(num_tokens))
        x = x + self.segments(jnp.zeros_like(tokens) if segments is None else segments)
        mask = None if lengths is None else Mask(lengths=lengths)
        return self.blocks(self.dropout(self.norm(x), rngs=rngs), mask, rngs=rngs)

    def pool(self, x: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        """One vector for a text: `tanh(W x_0 + b)`, of the first token, [CLS]."""
        if self.pooler is None:
            raise ValueError("this BERT has no pooler; build it with pooled=True")
        return tanh(self.pooler(x[:, 0]))


class MaskedWords(nnx.Module):
    """Which word stands at each place: `norm(gelu(W x + b)) Eᵀ + c`, E the encoder's token table.

    The paper's "masked LM" (section 3.1, task 1). It takes the table as an array,
    `head(x, bert.tokens.table[...])`, so that the weights are shared and the modules are not.
    """

    def __init__(self, config: BERTConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.transform = Linear(
            config.dim, config.dim, rngs=rngs, kernel_init=truncated_normal, ops=ops
        )
        self.norm = LayerNorm(config.dim, epsilon=EPSILON, ops=ops)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))
        self.dense = ops.dense

    def __call__(self, x: Float[Array, "*B D"], table: Float[Array, "V D"]) -> Float[Array, "*B V"]:
        """Logits of every word; `x` may be the vectors of the hidden places alone, [M, D]."""
        x = self.norm(gelu_erf(self.transform(x)))
        return self.dense(x, table.T.astype(x.dtype), self.bias.astype(x.dtype))


class Classifier(nnx.Module):
    """The class of a text, from its pooled vector: `head(bert.pool(x))` (figure 4 a, b)."""

    def __init__(self, config: BERTConfig, num_classes: int, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        check_positive(num_classes=num_classes)
        self.dropout = Dropout(config.dropout_rate)
        self.linear = Linear(
            config.dim, num_classes, rngs=rngs, kernel_init=truncated_normal, ops=ops
        )

    def __call__(
        self, pooled: Float[Array, "*B D"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*B classes"]:
        return self.linear(self.dropout(pooled, rngs=rngs))


class Tagger(Classifier):
    """A class for each token, from the encoder's vectors: `head(x)` (figure 4 d)."""


class Spans(nnx.Module):
    """How likely an answer starts and ends at each token: `S · x_i` and `E · x_i` (section 4.2).

    `zoo.functional.spans` finds the best spans in these.
    """

    def __init__(self, config: BERTConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.linear = Linear(config.dim, 2, rngs=rngs, kernel_init=truncated_normal, ops=ops)

    def __call__(
        self, x: Float[Array, "B T D"], lengths: Int[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Start and end logits, -inf in the padding: no answer is there, and none weighs on it."""
        logits = self.linear(x)
        if lengths is not None:
            real = jnp.arange(x.shape[1]) < lengths[:, None]
            logits = jnp.where(real[..., None], logits, -jnp.inf)
        return logits[..., 0], logits[..., 1]


def _check_shape(name: str, x: Array | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless there is no `x`, or it has the shape."""
    if x is not None and x.shape != shape:
        raise ValueError(f"{name} has shape {x.shape}, with these tokens BERT wants {shape}")
