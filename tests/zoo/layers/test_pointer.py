"""The pointer by its formula, from the encoded source to the probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized
from zoo.layers import Memory, Pointer


def test_a_pointer_is_its_formula():
    pointer = randomized(lambda: Pointer(4, rngs=nnx.Rngs(0)))
    h, y, logits = random(2, 5, 4), random(2, 3, 4, seed=1), random(2, 3, 7, seed=2)
    source, lengths = np.array([[3, 1, 3, 6, 0], [2, 2, 5, 0, 0]]), np.array([5, 3])

    @jax.jit
    def point(pointer):
        memory = Memory(h, jnp.asarray(source), jnp.asarray(lengths))
        return pointer(y, logits, pointer.keys(memory))

    w_q, w_k, w_p, w_g = (
        np.asarray(layer.kernel[...], np.float64)
        for layer in (pointer.query, pointer.key, pointer.key_before, pointer.gate)
    )
    expected = np.zeros((2, 3, 7))
    for b, t in np.ndindex(2, 3):
        n = lengths[b]
        before = np.concatenate([np.zeros((1, 4)), h[b, : n - 1]])
        scores = (h[b, :n] @ w_k + before @ w_p) @ (y[b, t] @ w_q) / np.sqrt(4)
        a = np.exp(scores) / np.exp(scores).sum()
        g = 1 / (1 + np.exp(-(y[b, t] @ w_g + np.asarray(pointer.gate.bias))[0]))
        expected[b, t] = g * np.exp(logits[b, t]) / np.exp(logits[b, t]).sum()
        np.add.at(expected[b, t], source[b, :n], (1 - g) * a)
    assert_close(jnp.exp(point(pointer)), expected)
