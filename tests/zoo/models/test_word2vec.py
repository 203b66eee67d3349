"""Skip-gram: scores, neighbours by cosine, its start, and every field of its config."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.zoo.compare import count_parameters, randomized
from zoo.models.word2vec import SkipGram, SkipGramConfig

SMALL = SkipGramConfig(vocab_size=9, dim=4)
WORDS = jnp.array([[0, 3, 8], [2, 2, 5]])
CONTEXTS = jnp.array([[1, 7], [4, 2]])


def build(config=SMALL):
    return randomized(lambda: SkipGram(config, rngs=nnx.Rngs(0)))


def test_a_score_is_the_product_of_two_vectors():
    model = build()
    scores = model(WORDS, CONTEXTS)
    v, u = model.words.table[...], model.contexts.table[...]
    for row in range(2):
        for t in range(3):
            for s in range(2):
                assert_close(scores[row, t, s], v[WORDS[row, t]] @ u[CONTEXTS[row, s]])


def test_graph_mode_and_tree_mode_agree():
    results = []
    for graph in (True, False):
        with nnx.set_graph_mode(graph):
            model = build()
            results.append(nnx.jit(lambda model: model(WORDS, CONTEXTS))(model))
    assert_close(results[1], results[0])


def test_the_nearest_words_are_those_of_a_loop():
    model = build()
    table = np.asarray(model.words.table[...], np.float64)
    places, cosines = model.nearest(jnp.array([3, 0]), 4)
    for row, word in enumerate((3, 0)):
        norms = np.linalg.norm(table, axis=1) * np.linalg.norm(table[word])
        every = table @ table[word] / norms
        order = [i for i in np.argsort(-every) if i != word][:4]
        assert places[row].tolist() == order
        assert_close(cosines[row], every[order])


def test_it_starts_as_the_authors_program_does():
    model = zoo.create("word2vec", rngs=nnx.Rngs(0), vocab_size=1000)
    start = model.words.table[...]
    assert jnp.abs(start).max() <= 0.5 / 100
    assert float(jnp.std(start)) == pytest.approx(0.01 / 12**0.5, rel=0.01)  # of U(±0.005)
    assert not model.contexts.table[...].any()


@pytest.mark.parametrize(("field", "value", "count"), [("vocab_size", 5, 40), ("dim", 3, 54)])
def test_every_field_changes_the_model(field, value, count):
    config = dataclasses.replace(SMALL, **{field: value})
    model = nnx.eval_shape(lambda: zoo.build(config, rngs=nnx.Rngs(0)))
    assert count_parameters(model) == count
    assert {f.name for f in dataclasses.fields(SkipGramConfig)} == {"vocab_size", "dim"}


def test_the_config_takes_what_the_data_decide():
    assert SMALL.for_vocab(11) == SkipGramConfig(vocab_size=11, dim=4)


def test_a_wrong_value_or_input_is_named():
    with pytest.raises(ValueError, match="dim=0 must be at least 1"):
        SkipGramConfig(dim=0)
    with pytest.raises(TypeError, match="SkipGram wants token numbers, integers; got float32"):
        build()(WORDS.astype(jnp.float32), CONTEXTS)
    with pytest.raises(ValueError, match=r"SkipGram wants tokens .*2 axes; got 1"):
        build()(WORDS, CONTEXTS[0])
