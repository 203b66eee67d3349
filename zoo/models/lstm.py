"""Models around long short-term memory (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    stacked LSTM      x [B, T, C] → LSTM 64 → LSTM 32 → LSTM 16 → last output → dense → logits
    LSTM classifier   tokens → embedding → LSTM 100 → last output → dense → one logit, or classes
    language model    tokens → embedding → LSTM x L → dense, or Eᵀ → logits of the next token

The last output of a sequence is that of its own last step, `lengths - 1`; what stands after it is
padding and changes nothing.

Differs from the papers: weights start as U(±1/√H), and the bias of the forget gates
starts 1 higher (Jozefowicz et al. 2015, sec. 2.2); the language model is Zaremba et al. 2014, with
dropout on the vertical connections only, and may tie its output to its embedding
(Press & Wolf 2017).
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Num

from zoo.functional.ops import Ops
from zoo.functional.recurrent import LSTMState, length_mask
from zoo.layers import LSTM, Dropout, Embed, Linear
from zoo.layers.check import (
    check_data_shape,
    check_input,
    check_positive,
    check_rate,
    check_tokens,
)

Lengths = Int[Array, "..."] | None


@dataclass(frozen=True, kw_only=True)
class StackedLSTMConfig:
    """Sizes of a stacked LSTM; the default is `stacked_64_32_16`."""

    in_channels: int = 12  # numbers measured at each step
    hidden_dims: tuple[int, ...] = (64, 32, 16)  # width of each LSTM
    num_classes: int = 9
    dropout_rate: float = 0.0  # after each LSTM, in training
    forget_bias: float = 1.0  # added to the forget gates' bias at the start

    def __post_init__(self):
        check_positive(
            in_channels=self.in_channels,
            hidden_dims=self.hidden_dims,
            num_classes=self.num_classes,
        )
        if not self.hidden_dims:
            raise ValueError("hidden_dims=() must name at least one LSTM")
        check_rate(dropout_rate=self.dropout_rate)

    @classmethod
    def stacked_64_32_16(cls) -> "StackedLSTMConfig":
        """LSTMs of 64, 32 and 16: 35,417 parameters with 12 channels and 9 classes."""
        return cls(hidden_dims=(64, 32, 16))

    def for_data(self, input_shape: tuple[int, ...], num_outputs: int) -> "StackedLSTMConfig":
        """This config for sequences of shape (steps, channels) and so many classes."""
        check_data_shape(self, input_shape, 2, "steps, channels")
        return replace(self, in_channels=input_shape[1], num_classes=num_outputs)


class StackedLSTM(nnx.Module):
    """Each LSTM reads the outputs of the one before it; the last output decides."""

    def __init__(self, config: StackedLSTMConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        dims = (config.in_channels, *config.hidden_dims)
        self.lstms = nnx.List(
            [
                LSTM(in_dim, dim, rngs=rngs, forget_bias=config.forget_bias, ops=ops)
                for in_dim, dim in pairwise(dims)
            ]
        )
        self.dropout = Dropout(config.dropout_rate)
        self.classifier = Linear(dims[-1], config.num_classes, rngs=rngs, ops=ops)

    def __call__(
        self,
        x: Num[Array, "..."],
        *,
        lengths: Lengths = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B num_classes"]:
        """From `[B, T, channels]`, of which `lengths` [B] steps are real, to logits."""
        check_input(self, x, steps=0, channels=self.config.in_channels)
        mask, last = _mask(x, lengths), x
        for lstm in self.lstms:
            x, state = lstm(x, lstm.initial_state(len(x)), mask=mask)
            x, last = self.dropout(x, rngs=rngs), state.h[-1].astype(x.dtype)
        return self.classifier(self.dropout(last, rngs=rngs))


@dataclass(frozen=True, kw_only=True)
class LSTMClassifierConfig:
    """Sizes of a text classifier; the default is `sentiment`."""

    vocab_size: int = 5000  # V
    embed_dim: int = 32  # D
    lstm_dim: int = 100  # H
    num_outputs: int = 1  # 1: the logit z of two classes, P(class 1) = σ(z); else one logit a class
    dropout_rate: float = 0.0  # of embeddings and of the last output, in training
    forget_bias: float = 1.0  # added to the forget gate's bias at the start

    def __post_init__(self):
        sizes = ("vocab_size", "embed_dim", "lstm_dim", "num_outputs")
        check_positive(**{name: getattr(self, name) for name in sizes})
        check_rate(dropout_rate=self.dropout_rate)

    @classmethod
    def sentiment(cls) -> "LSTMClassifierConfig":
        """Embedding of 32, LSTM of 100, one logit: 213,301 parameters with 5,000 words."""
        return cls(embed_dim=32, lstm_dim=100, num_outputs=1)

    def for_vocab(self, vocab_size: int, num_outputs: int) -> "LSTMClassifierConfig":
        """This config for so many tokens and so many logits."""
        return replace(self, vocab_size=vocab_size, num_outputs=num_outputs)


class LSTMClassifier(nnx.Module):
    """One LSTM reads a text word by word; what it holds at the end is classified."""

    def __init__(self, config: LSTMClassifierConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        self.embed = Embed(config.vocab_size, config.embed_dim, rngs=rngs)
        self.lstm = LSTM(
            config.embed_dim, config.lstm_dim, rngs=rngs, forget_bias=config.forget_bias, ops=ops
        )
        self.dropout = Dropout(config.dropout_rate)
        self.classifier = Linear(config.lstm_dim, config.num_outputs, rngs=rngs, ops=ops)

    def __call__(
        self,
        tokens: Num[Array, "..."],
        *,
        lengths: Lengths = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B num_outputs"]:
        """From tokens `[B, T]`, of which `lengths` [B] are real, to logits."""
        check_tokens(self, tokens, self.config.vocab_size)
        x = self.dropout(self.embed(tokens), rngs=rngs)
        _, state = self.lstm(x, self.lstm.initial_state(len(x)), mask=_mask(tokens, lengths))
        return self.classifier(self.dropout(state.h[-1].astype(x.dtype), rngs=rngs))


@dataclass(frozen=True, kw_only=True)
class LSTMLanguageModelConfig:
    """Sizes of a language model; the default is `characters`."""

    vocab_size: int = 128  # V
    dim: int = 256  # D and H, width of the embedding and of every LSTM
    num_layers: int = 2  # L
    tie_embeddings: bool = True  # the output layer's weights are the embedding's
    dropout_rate: float = 0.0  # of embeddings and of every LSTM's outputs, in training
    forget_bias: float = 1.0  # added to the forget gates' bias at the start

    def __post_init__(self):
        sizes = ("vocab_size", "dim", "num_layers")
        check_positive(**{name: getattr(self, name) for name in sizes})
        check_rate(dropout_rate=self.dropout_rate)

    @classmethod
    def characters(cls) -> "LSTMLanguageModelConfig":
        """2 layers of 256 for characters: 1,083,520 parameters."""
        return cls()

    @classmethod
    def ptb_medium(cls) -> "LSTMLanguageModelConfig":
        """2 layers of 650 for 10,000 words (Zaremba et al. 2014, sec. 4.1): 19.8 million."""
        return cls(
            vocab_size=10_000, dim=650, tie_embeddings=False, dropout_rate=0.5, forget_bias=0.0
        )

    @classmethod
    def ptb_large(cls) -> "LSTMLanguageModelConfig":
        """2 layers of 1500 for 10,000 words (Zaremba et al. 2014, sec. 4.1): 66.0 million."""
        return replace(cls.ptb_medium(), dim=1500, dropout_rate=0.65)

    def for_vocab(self, vocab_size: int) -> "LSTMLanguageModelConfig":
        """This config for so many tokens."""
        return replace(self, vocab_size=vocab_size)


class LSTMLanguageModel(nnx.Module):
    """At every token, what comes next; the state carries what was read so far."""

    def __init__(self, config: LSTMLanguageModelConfig, *, rngs: nnx.Rngs, ops: Ops = Ops()):
        self.config = config
        dim = config.dim
        self.embed = Embed(config.vocab_size, dim, rngs=rngs)
        self.lstm = LSTM(
            dim,
            dim,
            rngs=rngs,
            num_layers=config.num_layers,
            dropout_rate=config.dropout_rate,
            forget_bias=config.forget_bias,
            ops=ops,
        )
        self.dropout = Dropout(config.dropout_rate)
        if config.tie_embeddings:
            self.bias = nnx.Param(jnp.zeros(config.vocab_size))
        else:
            self.output = Linear(dim, config.vocab_size, rngs=rngs, ops=ops)
        self.dense, self.linear_cross_entropy = ops.dense, ops.linear_cross_entropy

    def __call__(
        self,
        tokens: Num[Array, "..."],
        *,
        lengths: Lengths = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B T V"]:
        """From tokens `[B, T]`, from the beginning of a text, to logits of what follows each."""
        state = self.initial_state(len(tokens))
        return self.step(tokens, state, lengths=lengths, rngs=rngs)[0]

    def losses(
        self,
        tokens: Num[Array, "..."],
        targets: Int[Array, "B T"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B T"]:
        """Cross-entropy of each target, in nats, without the logits of all in memory."""
        x, _ = self._read(tokens, self.initial_state(len(tokens)), None, rngs)
        kernel, bias = self._output(x.dtype)
        return self.linear_cross_entropy(x, kernel, targets, bias)

    def step(
        self,
        tokens: Num[Array, "..."],
        state: LSTMState,
        *,
        lengths: Lengths = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "B T V"], LSTMState]:
        """The same for the next tokens after those that `state` has read, and the state after."""
        x, state = self._read(tokens, state, lengths, rngs)
        return self.dense(x, *self._output(x.dtype)), state

    def initial_state(self, batch: int) -> LSTMState:
        """The state before the first token of so many texts."""
        return self.lstm.initial_state(batch)

    def empty_caches(self, batch_size: int, num_tokens: int) -> LSTMState:
        """The same by the name that Transformers have for it; no state grows with the text."""
        del num_tokens
        return self.initial_state(batch_size)

    def _read(
        self,
        tokens: Num[Array, "..."],
        state: LSTMState,
        lengths: Lengths,
        rngs: nnx.Rngs | None,
    ) -> tuple[Float[Array, "B T D"], LSTMState]:
        check_tokens(self, tokens, self.config.vocab_size)
        x = self.dropout(self.embed(tokens), rngs=rngs)
        x, state = self.lstm(x, state, mask=_mask(tokens, lengths), rngs=rngs)
        return self.dropout(x, rngs=rngs), state

    def _output(self, dtype: Any) -> tuple[Float[Array, "D V"], Float[Array, " V"]]:
        """Kernel and bias of the output layer."""
        if self.config.tie_embeddings:
            return self.embed.table.T.astype(dtype), self.bias.astype(dtype)
        assert self.output.bias is not None
        return self.output.kernel.astype(dtype), self.output.bias.astype(dtype)


def _mask(inputs: Array, lengths: Lengths) -> Bool[Array, "B T"] | None:
    """True at the steps that are real."""
    if lengths is None:
        return None
    if lengths.shape != inputs.shape[:1]:
        raise ValueError(
            f"lengths has shape {lengths.shape}, the batch is {inputs.shape[0]} sequences; give "
            "each its number of steps, or None where all are whole"
        )
    return length_mask(lengths, inputs.shape[1])
