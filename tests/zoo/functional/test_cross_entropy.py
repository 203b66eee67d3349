"""Cross-entropy against optax, at ordinary and at extreme logits."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.cross_entropy import (
    linear_cross_entropy,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)

LABELS = jnp.array([[0, 3, 6], [2, 2, 5]])
ONEHOT = jax.nn.one_hot(LABELS, 7)
PROBABILITIES = jax.nn.softmax(random(2, 3, 7, seed=1))


def gradient(function, logits, targets):
    return jax.grad(lambda z: function(z, targets).sum())(logits)


@pytest.mark.parametrize("scale", [1, 1e4])
def test_labels_against_optax(scale):
    logits = scale * random(2, 3, 7)
    oracle = optax.softmax_cross_entropy_with_integer_labels
    assert_close(softmax_cross_entropy(logits, LABELS), oracle(logits, LABELS))
    assert_close(gradient(softmax_cross_entropy, logits, LABELS), gradient(oracle, logits, LABELS))


@pytest.mark.parametrize("scale", [1, 1e4])
def test_probabilities_against_optax(scale):
    logits = scale * random(2, 3, 7)
    oracle = optax.softmax_cross_entropy
    assert_close(softmax_cross_entropy(logits, PROBABILITIES), oracle(logits, PROBABILITIES))
    assert_close(
        gradient(softmax_cross_entropy, logits, PROBABILITIES),
        gradient(oracle, logits, PROBABILITIES),
    )


@pytest.mark.parametrize("targets", [LABELS, ONEHOT])
def test_label_smoothing_mixes_the_target_with_the_uniform_one(targets):
    logits = random(2, 3, 7)
    expected = optax.softmax_cross_entropy(logits, optax.smooth_labels(ONEHOT, 0.1))
    assert_close(softmax_cross_entropy(logits, targets, label_smoothing=0.1), expected)


def test_a_hopeless_logit_costs_its_distance_and_nothing_overflows():
    logits = jnp.array([[1e4, -1e4]])
    assert softmax_cross_entropy(logits, jnp.array([1])).tolist() == [2e4]
    assert softmax_cross_entropy(logits, jnp.array([0])).tolist() == [0]
    # Subtracting the largest logit first keeps what a common offset would swallow.
    assert_close(softmax_cross_entropy(logits + 1e4, jnp.array([1])), [2e4])


def test_the_loss_of_bfloat16_logits_is_float32():
    logits = random(2, 3, 7).astype(jnp.bfloat16)
    loss = softmax_cross_entropy(logits, LABELS)
    assert loss.dtype == jnp.float32
    assert_close(loss, softmax_cross_entropy(logits.astype(jnp.float32), LABELS))
    assert gradient(softmax_cross_entropy, logits, LABELS).dtype == jnp.bfloat16


@pytest.mark.parametrize("scale", [1, 1e4])
def test_sigmoid_cross_entropy_against_optax(scale):
    logits, targets = scale * random(9), jax.nn.sigmoid(random(9, seed=1))
    oracle = optax.sigmoid_binary_cross_entropy
    assert_close(sigmoid_cross_entropy(logits, targets), oracle(logits, targets))
    expected = gradient(oracle, logits, targets)
    assert_close(gradient(sigmoid_cross_entropy, logits, targets), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_are_held_once_and_so_is_their_gradient(dtype):
    """In float32: no log-probabilities, nor a copy of what is float32 already, beside them.

    Some versions of XLA keep bfloat16 logits, half as large, next to what they became in float32.
    """
    x, kernel = jax.ShapeDtypeStruct((512, 64), dtype), jax.ShapeDtypeStruct((64, 4096), dtype)
    targets = jax.ShapeDtypeStruct((512,), jnp.int32)
    beside = 0.2 if dtype == jnp.float32 else 0.6  # of the loss alone

    def loss(x, kernel, targets):
        return linear_cross_entropy(x, kernel, targets, label_smoothing=0.1).mean()

    for function, copies, more in ((loss, 1, beside), (jax.grad(loss, (0, 1)), 2, 0.2)):
        compiled = jax.jit(function).lower(x, kernel, targets).compile()
        memory: Any = compiled.memory_analysis()
        assert copies <= memory.temp_size_in_bytes / (4 * 512 * 4096) < copies + more
