"""BERT: padding, segments, the scanned stack, heads, published sizes; `parity` has its twin."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.zoo.compare import random, randomized
from zoo.models.bert import BERT, BERTConfig, Classifier, MaskedWords, Spans, Tagger

CONFIG = BERTConfig(
    vocab_size=31, context=12, num_segments=2, num_layers=2, num_heads=4, dim=16, hidden_dim=24,
    dropout_rate=0.0,
)  # fmt: skip
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 31, (2, 8)))
LENGTHS = jnp.array([8, 5])


def build(**changes) -> BERT:
    config = dataclasses.replace(CONFIG, **changes)
    return randomized(lambda: BERT(config, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def model() -> BERT:
    return build()


@jax.jit
def encode(model, tokens, lengths=None, segments=None, key=None):
    rngs = None if key is None else nnx.Rngs(dropout=key)
    return model(tokens, lengths, segments, rngs=rngs)


def test_padding_never_changes_an_answer(model):
    """Not what stands in the padding, and not how much of it there is."""
    spans = Spans(CONFIG, rngs=nnx.Rngs(0))

    def answers(tokens, lengths=None):
        x = encode(model, tokens, lengths)
        start, end = spans(x, lengths)
        return x, model.pool(x), start, end

    long = answers(TOKENS, LENGTHS)
    changed = answers(TOKENS.at[1, 5:].set(7), LENGTHS)
    alone = answers(TOKENS[1:, :5])
    for padded in (long, changed):
        x, pooled, start, end = padded
        assert_close((x[1:, :5], pooled[1:], start[1:, :5], end[1:, :5]), alone)
        assert jnp.isneginf(start[1, 5:]).all() and jnp.isneginf(end[1, 5:]).all()


def test_every_token_sees_every_other(model):
    changed = encode(model, TOKENS.at[:, 7].set(3))
    assert not np.allclose(changed[:, 0], encode(model, TOKENS)[:, 0])


def test_segments_are_0_by_default(model):
    zeros = jnp.zeros_like(TOKENS)
    assert_close(encode(model, TOKENS, None, zeros), encode(model, TOKENS))
    assert not np.allclose(encode(model, TOKENS, None, zeros.at[:, 4:].set(1)), zeros[..., None])


def test_the_order_of_words_matters(model):
    assert not np.allclose(encode(model, TOKENS)[:, 0], encode(model, TOKENS[:, ::-1])[:, -1])


@pytest.mark.parametrize("remat", [False, True])
def test_a_scan_is_the_loop(model, remat):
    other = nnx.eval_shape(
        lambda: BERT(dataclasses.replace(CONFIG, scan=True, remat=remat), rngs=nnx.Rngs(0))
    )
    state = nnx.state(model)
    blocks = [state["blocks"]["blocks"][i] for i in range(CONFIG.num_layers)]
    state["blocks"]["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    nnx.update(other, state)
    assert_close(encode(other, TOKENS, LENGTHS), encode(model, TOKENS, LENGTHS))


def test_dropout_is_in_the_embeddings_the_blocks_and_the_heads():
    model = build(dropout_rate=0.3)
    x = encode(model, TOKENS, key=jax.random.key(0))
    assert not np.allclose(x, encode(model, TOKENS, key=jax.random.key(1)))
    assert_close(encode(nnx.view(model, deterministic=True), TOKENS), encode(build(), TOKENS))
    for head in (Classifier, Tagger):
        with pytest.raises(ValueError, match="needs random numbers"):
            head(model.config, 3, rngs=nnx.Rngs(0))(x)


def test_masked_words_for_the_hidden_places_alone(model):
    head = randomized(lambda: MaskedWords(CONFIG, rngs=nnx.Rngs(0)))
    x, table = random(2, 8, 16), model.tokens.table[...]
    rows, places = jnp.array([0, 1, 1]), jnp.array([3, 0, 4])
    assert_close(head(x[rows, places], table), head(x, table)[rows, places])


@pytest.mark.parametrize(
    ("name", "size"),
    [("bert-base", 109_482_240), ("bert-large", 335_141_888), ("minilm", 22_713_216)],
)
def test_published_sizes(name, size):
    def count(**overrides):
        model = nnx.eval_shape(lambda: zoo.create(name, rngs=nnx.Rngs(0), **overrides))
        return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))

    assert count() == size
    dim = zoo.config(name).dim
    assert count(pooled=False) == size - dim * (dim + 1)


def test_a_text_without_a_pooler():
    with pytest.raises(ValueError, match="build it with pooled=True"):
        build(pooled=False).pool(random(2, 8, 16))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ((jnp.zeros((2, 13), jnp.int32),), ValueError, "context of 12 tokens, got 13"),
        ((jnp.zeros((2, 3)),), TypeError, "wants token numbers"),
        ((TOKENS, LENGTHS[:1]), ValueError, r"lengths has shape \(1,\), .* wants \(2,\)"),
        ((TOKENS, None, TOKENS[:, 1:]), ValueError, r"segments has shape \(2, 7\)"),
    ],
)
def test_wrong_inputs_are_named(model, inputs, error, message):
    with pytest.raises(error, match=message):
        model(*inputs)


def test_wrong_settings_are_named():
    assert BERTConfig.nano().for_vocab(99).vocab_size == 99
    with pytest.raises(ValueError, match="must divide"):
        BERTConfig(dim=10, num_heads=4)
    with pytest.raises(ValueError, match="num_segments=0 must be at least 1"):
        BERTConfig(num_segments=0)
