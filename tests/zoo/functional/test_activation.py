"""Activations against jax.nn and closed forms, with their gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from zoo.functional import activation

X = jnp.concatenate([jnp.linspace(-6, 6, 241), jnp.array([-1e4, -90.0, 90.0, 1e4])])
ORACLES = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jax.nn.tanh,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "gelu_erf": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def test_every_activation_has_an_oracle():
    assert ORACLES.keys() == activation.ACTIVATIONS.keys()


@pytest.mark.parametrize("name", ORACLES)
def test_values_and_gradients(name):
    ours, oracle = activation.ACTIVATIONS[name], ORACLES[name]
    assert_close(ours(X), oracle(X))
    assert_close(jax.vmap(jax.grad(ours))(X), jax.vmap(jax.grad(oracle))(X))


def test_the_two_gelus_differ_by_at_most_what_the_docstring_says():
    x = jnp.linspace(-6, 6, 10001)
    gap = jnp.max(jnp.abs(activation.gelu_erf(x) - activation.gelu_tanh(x)))
    assert 4e-4 < gap < 5e-4


def test_gelu_erf_is_x_times_the_normal_distribution_function():
    x = np.linspace(-3, 3, 13)
    expected = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x]
    assert_close(activation.gelu_erf(jnp.asarray(x, jnp.float32)), expected)


def test_relu_has_no_gradient_at_zero():
    assert jax.grad(activation.relu)(0.0) == 0


def test_softmax_sums_to_one_and_survives_large_inputs():
    x = jnp.array([[1e4, 1e4, -1e4], [0.0, 1.0, 2.0]])
    assert_close(activation.softmax(x), jax.nn.softmax(x))
    assert_close(activation.softmax(x, axis=0), jax.nn.softmax(x, axis=0))
    jacobian = jax.jacobian(activation.softmax)(x[1])
    assert_close(jacobian, jax.jacobian(jax.nn.softmax)(x[1]))
