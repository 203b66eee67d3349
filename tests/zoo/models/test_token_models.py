"""Every model of tokens refuses those that its vocabulary has not, where they are known."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import zoo
from zoo.layers.check import check_tokens
from zoo.models.bert import BERTConfig
from zoo.models.gpt import GPTConfig
from zoo.models.llama import LlamaConfig
from zoo.models.lstm import LSTMClassifierConfig, LSTMLanguageModelConfig
from zoo.models.seq2seq import LSTMSeq2SeqConfig
from zoo.models.transformer import TransformerConfig
from zoo.models.word2vec import SkipGramConfig

VOCAB, SOURCE_VOCAB = 7, 9
TOKENS = jnp.array([[0, 6, 3]])
PAIRS: dict[str, Any] = {
    "source_vocab_size": SOURCE_VOCAB,
    "share_tables": False,
    "dropout_rate": 0.0,
}
CONFIGS = {
    name: replace(config, vocab_size=VOCAB)
    for name, config in {
        "GPT": GPTConfig.nano(),
        "Llama": LlamaConfig.nano(),
        "BERT": replace(BERTConfig.nano(), dropout_rate=0.0),
        "LSTM classifier": LSTMClassifierConfig(),
        "LSTM": LSTMLanguageModelConfig(),
        "Transformer": replace(TransformerConfig.nano(), **PAIRS),
        "seq2seq": replace(LSTMSeq2SeqConfig.nano(), **PAIRS),
        "word2vec": SkipGramConfig(),
    }.items()
}


def read(model, x):
    return model(x)


def read_source(model, x):
    return model(x, TOKENS)


def read_second(model, x):
    return model(TOKENS, x)


def go_on(model, x):
    return model.step(x, model.empty_caches(1, 4))[0]


def go_on_from_source(model, x):
    return model.step(x, model.empty_caches(model.encode(TOKENS), 4))[0]


CALLS = [
    *((name, VOCAB, read) for name in ("GPT", "Llama", "BERT", "LSTM classifier", "LSTM")),
    *((name, VOCAB, go_on) for name in ("GPT", "Llama", "LSTM")),
    *((name, SOURCE_VOCAB, read_source) for name in ("Transformer", "seq2seq")),
    *((name, VOCAB, read_second) for name in ("Transformer", "seq2seq")),
    *((name, VOCAB, go_on_from_source) for name in ("Transformer", "seq2seq")),
    *(("word2vec", VOCAB, call) for call in (read_source, read_second)),
]


@pytest.mark.parametrize(("name", "vocab_size", "call"), CALLS)
def test_tokens_outside_the_vocabulary(name, vocab_size, call):
    model = nnx.eval_shape(lambda: zoo.build(CONFIGS[name], rngs=nnx.Rngs(0)))

    def trace(tokens):
        """With an abstract model, so that nothing is compiled; the tokens are known."""
        return nnx.eval_shape(lambda model: call(model, tokens), model)

    trace(TOKENS.at[0, 1].set(vocab_size - 1))
    message = rf"a vocabulary of {vocab_size}, tokens 0 to {vocab_size - 1}; got token "
    for wrong in (vocab_size, -1):
        with pytest.raises(ValueError, match=rf"{message}{wrong}: the tokenizer does not fit"):
            trace(TOKENS.at[0, 1].set(wrong))
    nnx.eval_shape(call, model, TOKENS.at[0, 1].set(vocab_size))  # not known: not refused


def test_the_check_leaves_no_trace():
    """A compiled program is the same with it, whether the tokens are its input or a constant."""

    def checked(x, tokens):
        check_tokens(None, tokens, VOCAB)
        check_tokens(None, TOKENS, VOCAB)
        return x

    assert not jax.make_jaxpr(checked)(1.0, TOKENS).eqns
    check_tokens(None, TOKENS[:, :0], VOCAB)  # no token is no wrong one
