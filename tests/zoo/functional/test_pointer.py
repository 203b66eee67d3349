"""Copying from a source: the mixture word by word, and its gradients where a word is impossible."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.close import assert_close
from zoo.functional.pointer import pointer_mixture

NUMBERS = np.random.default_rng(0)
LOGITS = NUMBERS.normal(size=(2, 3, 7))
GATE = NUMBERS.normal(size=(2, 3))
WEIGHTS = NUMBERS.dirichlet(np.ones(4), size=(2, 3))
SOURCE = np.array([[5, 1, 5, 2], [0, 6, 3, 3]])  # with words that stand there twice


def mixture(gate=GATE):
    logits, gate, weights = (jnp.asarray(x, jnp.float32) for x in (LOGITS, gate, WEIGHTS))
    return pointer_mixture(logits, gate, weights, jnp.asarray(SOURCE))


def test_each_word_has_its_share_of_both():
    expected = np.zeros_like(LOGITS)
    for b, t, v in np.ndindex(*LOGITS.shape):
        g = 1 / (1 + np.exp(-GATE[b, t]))
        chosen = np.exp(LOGITS[b, t, v]) / np.exp(LOGITS[b, t]).sum()
        copied = sum(WEIGHTS[b, t, s] for s in range(4) if SOURCE[b, s] == v)
        expected[b, t, v] = np.log(g * chosen + (1 - g) * copied)
    assert_close(mixture(), expected)
    assert_close(jnp.exp(mixture()).sum(-1), np.ones((2, 3)))


def test_at_its_ends_it_is_the_vocabulary_or_the_source():
    assert_close(mixture(np.full_like(GATE, 200.0)), jax.nn.log_softmax(LOGITS))
    only_copies = mixture(np.full_like(GATE, -200.0))
    stands_there = (SOURCE[:, :, None] == np.arange(7)).any(1)
    assert ((only_copies > -80) == stands_there[:, None]).all()


def test_an_impossible_word_has_a_gradient_that_is_a_number():
    gradient = jax.grad(lambda gate: mixture(gate).sum())(jnp.full(GATE.shape, -200.0))
    assert np.isfinite(gradient).all()
