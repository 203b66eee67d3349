"""Initialisers against the formulas in their docstrings, and the stock ones of JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from zoo.functional import init

KEY = jax.random.key(0)
SHAPE = (3, 3, 64, 128)
FAN_IN, FAN_OUT = 9 * 64, 9 * 128
VARIANCES = {
    init.lecun_normal: 1 / FAN_IN,
    init.lecun_uniform: 1 / FAN_IN,
    init.glorot_normal: 2 / (FAN_IN + FAN_OUT),
    init.glorot_uniform: 2 / (FAN_IN + FAN_OUT),
    init.he_normal: 2 / FAN_IN,
    init.he_uniform: 2 / FAN_IN,
    partial(init.normal, stddev=0.1): 0.01,
    partial(init.uniform, limit=0.3): 0.03,
    partial(init.truncated_normal, stddev=0.1): 0.01 * 0.8796**2,
}


@pytest.mark.parametrize(("initializer", "variance"), VARIANCES.items())
def test_mean_and_variance(initializer, variance):
    # 73,728 numbers: the standard error of the variance is under 0.6 % of it.
    sample = np.asarray(initializer(KEY, SHAPE, jnp.float32), np.float64)
    assert sample.shape == SHAPE
    assert sample.var() == pytest.approx(variance, rel=0.03)
    assert abs(sample.mean()) < 0.02 * np.sqrt(variance)


@pytest.mark.parametrize("name", ["lecun_uniform", "glorot_uniform", "he_uniform"])
def test_the_uniform_ones_equal_those_of_jax(name):
    stock = getattr(jax.nn.initializers, name)()
    assert_close(getattr(init, name)(KEY, SHAPE, jnp.float32), stock(KEY, SHAPE))


@pytest.mark.parametrize("name", ["lecun", "glorot", "he"])
def test_a_uniform_initialiser_fills_its_interval(name):
    sample = getattr(init, f"{name}_uniform")(KEY, SHAPE)
    limit = np.sqrt(3 * VARIANCES[getattr(init, f"{name}_uniform")])
    assert 0.99 * limit < jnp.max(jnp.abs(sample)) <= limit


def test_truncated_normal_stops_at_two_standard_deviations():
    sample = init.truncated_normal(KEY, (10_000,), stddev=0.02)
    assert 0.039 < jnp.max(jnp.abs(sample)) <= 0.04


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 2, 1, 4)])
def test_orthogonal_has_orthonormal_columns_or_rows(shape):
    matrix = np.asarray(init.orthogonal(KEY, shape, gain=2.0)).reshape(-1, shape[-1])
    small = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    assert_close(small, 4 * np.eye(len(small)))


def test_orthogonal_draws_differ_and_are_signed_both_ways():
    first = init.orthogonal(KEY, (6, 4))
    second = init.orthogonal(jax.random.key(1), (6, 4))
    assert not np.allclose(first, second)
    assert (np.diagonal(first) > 0).any()
    assert (np.diagonal(first) < 0).any()


def test_zeros_and_ones():
    assert init.zeros(KEY, (2, 3)).tolist() == [[0] * 3] * 2
    assert init.ones(KEY, (2, 3), jnp.bfloat16).dtype == jnp.bfloat16


def test_fans_need_a_kernel():
    assert init.fans((5, 3, 2)) == (15, 10)
    with pytest.raises(ValueError, match=r"shape=\(7,\) is not a kernel"):
        init.he_normal(KEY, (7,))
