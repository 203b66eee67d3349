"""What every language model keeps: its losses are those of its logits, without the logits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
import zoo
from kernels.softmax_cross_entropy import xla
from tests.close import assert_close
from tests.zoo.compare import by_path
from zoo.functional.cross_entropy import softmax_cross_entropy
from zoo.functional.ops import Ops
from zoo.models.gpt import GPTConfig
from zoo.models.llama import LlamaConfig
from zoo.models.lstm import LSTMLanguageModelConfig

VOCAB = 37  # a number that is the size of nothing else here
SIZE: dict[str, Any] = {"vocab_size": VOCAB, "num_layers": 2, "dim": 16}
LLAMA: dict[str, Any] = {**SIZE, "context": 12, "num_heads": 4, "num_kv_heads": 2, "hidden_dim": 24}
CONFIGS = {
    "GPT": GPTConfig(**SIZE, context=12, num_heads=4),
    "Llama": LlamaConfig(**LLAMA, tie_embeddings=False),
    "Llama, tied": LlamaConfig(**LLAMA, tie_embeddings=True),
    "LSTM": LSTMLanguageModelConfig(**SIZE, tie_embeddings=False),
    "LSTM, tied": LSTMLanguageModelConfig(**SIZE, tie_embeddings=True),
}
EACH = pytest.mark.parametrize("name", CONFIGS)
TOKENS, TARGETS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (2, 3, 10), np.int32))


def build(name, ops: Ops):
    return zoo.build(CONFIGS[name], rngs=nnx.Rngs(0), ops=ops)


@EACH
@pytest.mark.parametrize("ops", [Ops(), kernels.best("cpu")], ids=["reference", "kernels"])
def test_losses_are_those_of_the_logits(name, ops, monkeypatch):
    monkeypatch.setattr(xla, "TILE", 8)  # as though the vocabulary were large
    model = build(name, ops)

    def through_logits(model):
        return softmax_cross_entropy(model(TOKENS), TARGETS)

    losses = model.losses(TOKENS, TARGETS)
    assert losses.shape == TOKENS.shape
    assert_close(losses, through_logits(model))
    gradient = nnx.grad(lambda model: jnp.sin(model.losses(TOKENS, TARGETS)).sum())(model)
    expected = nnx.grad(lambda model: jnp.sin(through_logits(model)).sum())(model)
    assert_close(by_path(gradient), by_path(expected), kind="composite")


@EACH
def test_the_logits_of_all_tokens_never_exist(name, monkeypatch):
    monkeypatch.setattr(xla, "TILE", 8)
    graphdef, state = nnx.split(build(name, kernels.best("cpu")))

    def loss(state, function):
        return function(nnx.merge(graphdef, state)).sum()

    def program(function):
        return str(jax.make_jaxpr(jax.grad(lambda state: loss(state, function)))(state))

    assert f"3,10,{VOCAB}" in program(lambda model: model(TOKENS))
    tiled = program(lambda model: model.losses(TOKENS, TARGETS))
    assert f"3,10,{VOCAB}" not in tiled and f"[30,{VOCAB}]" not in tiled
