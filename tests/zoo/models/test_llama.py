"""Llama: causality, the cache, experts, published sizes; `parity` has its twins."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import preset_size, randomized
from zoo.models.llama import Llama, LlamaConfig

CONFIG = LlamaConfig(
    vocab_size=31, context=12, num_layers=2, num_heads=4, num_kv_heads=2, dim=16, hidden_dim=24
)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 31, (2, 10)))


def build(**changes) -> Llama:
    config = dataclasses.replace(CONFIG, **changes)
    return randomized(lambda: Llama(config, rngs=nnx.Rngs(0)))


def scanned(model: Llama, **changes) -> Llama:
    """The same weights in a model that scans over its blocks."""
    config = dataclasses.replace(model.config, scan=True, **changes)
    other = nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    state = nnx.state(model)
    blocks = [state["blocks"]["blocks"][layer] for layer in range(config.num_layers)]
    state["blocks"]["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    nnx.update(other, state)
    return other


@pytest.fixture(scope="module")
def model() -> Llama:
    return build()


@jax.jit
def run(model, tokens=TOKENS, key=None):
    rngs = None if key is None else nnx.Rngs(dropout=key)
    return model.with_auxiliary(tokens, rngs=rngs)


def test_the_future_is_not_seen(model):
    before, _ = run(model)
    later, _ = run(model, TOKENS.at[:, 6:].set(0))
    assert_close(later[:, :6], before[:, :6])
    assert not np.allclose(later[:, 6:], before[:, 6:])


@pytest.mark.parametrize("changes", [{"remat": True}, {"num_experts": 4}])
def test_a_scan_is_the_loop(changes):
    model = build(**changes)
    assert_close(run(scanned(model)), run(model))


@pytest.mark.parametrize(
    ("changes", "scan"), [({}, False), ({}, True), ({"num_experts": 4}, False)]
)
def test_with_a_cache_the_answer_is_that_of_a_full_pass(changes, scan):
    model = build(**changes)
    expected, _ = run(model)
    model = scanned(model) if scan else model
    step = jax.jit(lambda model, tokens, caches: model.step(tokens, caches))
    caches, logits = model.empty_caches(2, 12), []
    for piece in (TOKENS[:, :5], TOKENS[:, 5:6], TOKENS[:, 6:]):
        y, caches = step(model, piece, caches)
        logits.append(y)
    assert_close(jnp.concatenate(logits, 1), expected)


def test_every_setting_of_the_mathematics_matters(model):
    expected, loss = run(model)
    assert loss == 0
    for change in ({"rope_base": 100.0}, {"epsilon": 0.1}):
        assert not np.allclose(run(build(**change))[0], expected)
    few, loss = run(build(num_experts=4, experts_per_token=1))
    more, losses = run(build(num_experts=4, experts_per_token=3))
    assert not np.allclose(few, more)
    assert 0 < loss < losses


def test_dropout_is_drawn_anew_with_each_key():
    model = build(dropout_rate=0.3)
    y, _ = run(model, key=jax.random.key(0))
    assert not np.allclose(y, run(model, key=jax.random.key(1))[0])
    assert_close(run(nnx.view(model, deterministic=True)), run(build()))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("smollm2-135m", 134_515_008),
        ("llama-8b", 8_030_261_248),
        ("llama-70b", 70_553_706_496),
        ("mixtral-8x7b", 46_702_792_704),
    ],
)
def test_published_sizes(name, size):
    assert preset_size(name) == size


def test_the_output_layer_may_be_the_token_table():
    untied, tied = build(), build(tie_embeddings=True)
    assert untied.output is not None and tied.output is None
    assert run(tied)[0].shape == run(untied)[0].shape


def test_wrong_inputs_are_named(model):
    with pytest.raises(ValueError, match="context of 12 tokens, got 13"):
        model(jnp.zeros((2, 13), jnp.int32))
    with pytest.raises(TypeError, match="wants token numbers"):
        model(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="num_tokens=13 is more than the context of 12"):
        model.empty_caches(1, 13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 12}, "heads of even width"),
        ({"num_kv_heads": 3}, "num_kv_heads=3 must divide"),
        ({"num_experts": 2, "experts_per_token": 3}, "must lie in 1 .. "),
        ({"hidden_dim": 0}, "hidden_dim=0 must be at least 1"),
    ],
)
def test_wrong_settings_are_named(change, message):
    assert LlamaConfig.nano().for_vocab(99).vocab_size == 99
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)
