"""Spectral normalisation by its algorithm; `parity` compares it with PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized
from zoo.layers import Conv, Linear, SpectralNorm


def unit(x):
    return x / np.linalg.norm(x)


@pytest.fixture
def model() -> SpectralNorm:
    return randomized(lambda: SpectralNorm(Linear(6, 4, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1)))


def test_each_training_pass_takes_one_step_of_the_algorithm(model):
    kernel, x = np.asarray(model.layer.kernel[...], np.float64), np.asarray(random(3, 6))
    u = unit(random(4, seed=2))
    model.u[...] = jnp.asarray(u)
    for _ in range(3):
        v = unit(kernel @ u)
        u = unit(kernel.T @ v)
        expected = x @ kernel / (v @ kernel @ u) + np.asarray(model.layer.bias[...])
        assert_close(model(jnp.asarray(x)), expected)
        assert_close(model.u[...], u)
    evaluated = nnx.view(model, deterministic=True)
    assert_close(evaluated(jnp.asarray(x)), expected)
    assert_close(model.u[...], u)


def test_no_input_grows_by_more_than_itself(model):
    for _ in range(100):
        model(random(1, 6))
    change = nnx.view(model, deterministic=True)
    lengthened = jnp.linalg.norm(change(random(50, 6)) - change(jnp.zeros((50, 6))), axis=1)
    assert (lengthened <= jnp.linalg.norm(random(50, 6), axis=1) * 1.0001).all()
    assert_close(np.linalg.norm(change(jnp.eye(6)) - change(jnp.zeros((6, 6))), 2), 1.0)


def test_it_starts_with_vectors_that_fit():
    layer = SpectralNorm(Conv(2, 5, 3, use_bias=False, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    kernel = np.asarray(layer.layer.kernel[...], np.float64).reshape(18, 5)
    assert_close(layer.v[...], unit(kernel @ np.asarray(layer.u[...])))
    y = nnx.view(layer, deterministic=True)(random(2, 6, 6, 2))
    assert y.shape == (2, 6, 6, 5) and np.isfinite(y).all()
    assert not np.allclose(jax.device_get(layer.u[...]), 0)
