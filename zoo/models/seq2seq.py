"""Sequence to sequence by LSTMs with attention (Luong et al. 2015): the Transformer's ancestor.

    h̄ = LSTM both ways over E[source]               [B, S, D], the two directions side by side
    c₀ = ←h̄₁ W_s,   h₀ = tanh(c₀)                   the decoder's state before its first token
    h = LSTM over E[target], from h₀ and c₀         [B, T, D]
    a = softmax(h W_a h̄ᵀ / √D)                      how much each step looks at each source token
    h̃ = tanh([a h̄, h] W_c)
    logits = h̃ Eᵀ

An encoder of L layers reads the source, a decoder of L layers writes the target (Sutskever et al.
2014), and looks back at every source token (Bahdanau et al. 2015). This is Luong's global
attention with the score "general" (section 3.1): a is eq. 7, h̃ eq. 5, the logits eq. 6.

Differs from the papers:

- The encoder is Bahdanau's, which reads both ways, each D/2 wide; so the source is not reversed,
  as it is by Sutskever and Luong. The decoder's state starts from ←h̄₁, the backward reading of all
  of the source, by Bahdanau's `s₀ = tanh(W_s ←h₁)` (appendix A.2.2), where the others copy the
  state of each layer. His units have no cell; c₀ is what gives this h₀ by an open output gate.
- Without input feeding (Luong, section 3.3), h̃ of one step is no input of the next. So the LSTM
  reads a whole target at once, and attention is one product for all its steps.
- Scores are divided by √D, as in the Transformer; W_a could learn the same.
- With `share_tables`, one table serves source, target and output; in the papers there are three.
- Weights start as in the other models here, where Luong draws all of them from U(±0.1).
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from zoo.functional.activation import tanh
from zoo.functional.init import normal
from zoo.functional.ops import Op, Ops
from zoo.functional.recurrent import length_mask
from zoo.layers import LSTM, Dropout, Embed, Linear, LSTMState, Memory
from zoo.layers.check import (
    check_pairs,
    check_positive,
    check_rate,
    check_source_lengths,
    check_tokens,
)


@dataclass(frozen=True, kw_only=True)
class LSTMSeq2SeqConfig:
    """Sizes of an LSTM encoder-decoder; the default is `luong`."""

    vocab_size: int = 50_000  # V, of the target, and of the source where that has none of its own
    source_vocab_size: int | None = None
    share_tables: bool = False  # one table for source, target and output, else three
    num_layers: int = 4  # L, of the encoder, and as many of the decoder
    dim: int = 1000  # D, of embeddings and decoder; even, as each way of the encoder has half
    dropout_rate: float = 0.2  # of embeddings, between layers, and of what the output layer reads
    forget_bias: float = 1.0  # added to the forget gates' bias at the start

    def __post_init__(self):
        sizes = ("vocab_size", "num_layers", "dim")
        check_positive(**{name: getattr(self, name) for name in sizes})
        check_positive(source_vocab_size=self.source_vocab_size or self.vocab_size)
        check_rate(dropout_rate=self.dropout_rate)
        if self.dim % 2:
            raise ValueError(f"{self.dim=} must be even: each way of the encoder has half of it")
        if self.share_tables and self.source_vocab_size not in (None, self.vocab_size):
            raise ValueError(
                f"{self.source_vocab_size=} is not {self.vocab_size=}, so that one table cannot "
                "serve both; set share_tables=False"
            )

    @classmethod
    def nano(cls) -> "LSTMSeq2SeqConfig":
        """2 + 2 layers of 192, about as many parameters as Transformer nano's: 2.7 million."""
        return cls(vocab_size=8000, share_tables=True, num_layers=2, dim=192, dropout_rate=0.1)

    @classmethod
    def luong(cls) -> "LSTMSeq2SeqConfig":
        """4 + 4 layers of 1000, 50,000 words a side (Luong et al. 2015, sec. 4.1)."""
        return cls()

    def for_vocab(self, vocab_size: int) -> "LSTMSeq2SeqConfig":
        """This config for so many tokens, the same in source and target."""
        return replace(self, vocab_size=vocab_size, source_vocab_size=None)


class DecoderCache(NamedTuple):
    """What the decoder keeps from step to step; no part of it grows with the target.

    The batch is the first axis of every array, where beam search looks for it.
    """

    state: LSTMState  # h and c, [B, L, D]
    memory: Memory  # one for all hypotheses of a source


class LSTMSeq2Seq(nnx.Module):
    """The encoder, the decoder, what joins them, and the tables of their tokens."""

    def __init__(self, config: LSTMSeq2SeqConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        dim, num_layers = config.dim, config.num_layers
        # With h̃ below 1, an output layer that shares the table has logits of about 1 or less.
        init = {"table_init": partial(normal, stddev=dim**-0.5), "rngs": rngs}
        product = {"use_bias": False, "rngs": rngs, "ops": ops}  # the papers print no biases
        lstm = {
            "num_layers": num_layers,
            "dropout_rate": config.dropout_rate,
            "forget_bias": config.forget_bias,
            "rngs": rngs,
            "ops": ops,
        }
        own = not config.share_tables
        source_size = config.source_vocab_size or config.vocab_size
        self.target = Embed(config.vocab_size, dim, **init)
        self.source = Embed(source_size, dim, **init) if own else None
        self.output = Linear(dim, config.vocab_size, **product) if own else None
        self.encoder = LSTM(dim, dim // 2, bidirectional=True, **lstm)
        self.start = Linear(dim // 2, num_layers * dim, **product)  # W_s, of all layers
        self.decoder = LSTM(dim, dim, **lstm)
        self.query = Linear(dim, dim, **product)  # W_a
        self.combine = Linear(2 * dim, dim, **product)  # W_c
        self.dropout = Dropout(config.dropout_rate)
        self.attention, self.dense = ops.attention, ops.dense

    def set_view(self, attention: Op | None = None) -> None:
        """For `nnx.view`: another attention function, such as one that also shows its weights."""
        if attention is not None:
            self.attention = attention

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
                all that is real, where the decoder has not been.
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
        """h̄, a vector for each source token from all of the source; 0 for the padding."""
        check_tokens(self, source, self.config.source_vocab_size or self.config.vocab_size)
        check_source_lengths(source_lengths, source.shape[0])
        mask = None if source_lengths is None else length_mask(source_lengths, source.shape[1])
        x = self.dropout((self.source or self.target)(source), rngs=rngs)
        state = self.encoder.initial_state(source.shape[0])
        vectors, _ = self.encoder(x, state, mask=mask, rngs=rngs)
        return Memory(vectors, source, source_lengths)

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
        return self._read(target, self._first_state(memory), memory, rngs)[0]

    def step(
        self, tokens: Int[Array, "B T"], caches: DecoderCache
    ) -> tuple[Float[Array, "B T V"], DecoderCache]:
        """`decode` for the next target tokens after those that the caches have read."""
        check_tokens(self, tokens, self.config.vocab_size)
        logits, state = self._read(tokens, _swap_first_axes(caches.state), caches.memory)
        return logits, caches._replace(state=_swap_first_axes(state))

    def empty_caches(self, memory: Memory, num_tokens: int) -> DecoderCache:
        """The caches before the first target token of these encoded sources."""
        del num_tokens  # the state is of one size however long the target
        return DecoderCache(_swap_first_axes(self._first_state(memory)), memory)

    @property
    def batch_axes(self) -> Any:
        """The axis of the batch in the caches; None for the source, which hypotheses share."""
        return DecoderCache._make((0, None))

    def _first_state(self, memory: Memory) -> LSTMState:
        """h₀ and c₀ of every layer, `[L, B, D]`, in float32, as they add up over the steps."""
        # At the first token the backward direction has read all of the source.
        backward = memory.vectors[:, 0, self.config.dim // 2 :]
        c = self.start(backward).astype(jnp.float32)
        c = c.reshape(-1, self.config.num_layers, self.config.dim).swapaxes(0, 1)
        return LSTMState(tanh(c), c)

    def _read(
        self,
        tokens: Int[Array, "B T"],
        state: LSTMState,
        memory: Memory,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "B T V"], LSTMState]:
        """Logits after each of the next tokens, and the state after the last."""
        x = self.dropout(self.target(tokens), rngs=rngs)
        h, state = self.decoder(x, state, rngs=rngs)
        # Hypotheses of one source, successive rows, ask it together.
        queries = self.query(h).reshape(memory.tokens.shape[0], -1, 1, self.config.dim)
        keys = memory.vectors[:, :, None]  # one head; what is looked at is also what is taken
        context = self.attention(queries, keys, keys, memory.mask()).reshape(h.shape)
        y = tanh(self.combine(jnp.concatenate([context, h], axis=-1)))
        y = self.dropout(y, rngs=rngs)
        if self.output is not None:
            return self.output(y), state
        return self.dense(y, self.target.table.T.astype(y.dtype), None), state


def _swap_first_axes(state: LSTMState) -> LSTMState:
    """From layers first, as the LSTM wants its state, to the batch first, and back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), state)
