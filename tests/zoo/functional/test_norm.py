"""Normalisation by definition: what comes out has mean 0 and variance 1 over the right axes."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.norm import batch_moments, batch_norm, group_norm, layer_norm, rms_norm

X = 3 + 2 * random(4, 5, 5, 6)


def standardized(x, axes):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def test_batch_norm_uses_the_moments_given():
    mean, mean_square = batch_moments(X)
    actual = batch_norm(X, mean, mean_square - mean**2)
    assert_close(actual, standardized(X, (0, 1, 2)), kind="leaf")


def test_layer_norm_is_over_the_last_axis():
    assert_close(layer_norm(X), standardized(X, -1))


def test_group_norm_is_over_positions_and_the_channels_of_a_group():
    grouped = np.asarray(X).reshape(4, 5, 5, 3, 2)
    expected = standardized(grouped, (1, 2, 4)).reshape(X.shape)
    assert_close(group_norm(X, num_groups=3), expected)


def test_one_group_of_one_position_is_layer_norm():
    assert_close(group_norm(X[:, 0, 0], num_groups=1), layer_norm(X[:, 0, 0]))


def test_rms_norm_divides_by_the_root_mean_square():
    x = np.asarray(X, np.float64)
    assert_close(rms_norm(X), x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6))


def test_scale_and_bias_are_applied_last():
    scale, bias = random(6, seed=1), random(6, seed=2)
    assert_close(layer_norm(X, scale, bias), layer_norm(X) * scale + bias)
    plain = group_norm(X, num_groups=2)
    assert_close(group_norm(X, scale, bias, num_groups=2), plain * scale + bias)
    assert_close(rms_norm(X, scale), rms_norm(X) * scale)


@pytest.mark.parametrize("norm", [layer_norm, rms_norm, lambda x: group_norm(x, num_groups=2)])
def test_bfloat16_in_gives_bfloat16_out_with_float32_inside(norm):
    # At 300 ± 1, bfloat16 arithmetic would find the variance 0; float32 finds that of the input.
    x = (300 + random(2, 4, 64)).astype(jnp.bfloat16)
    actual = norm(x)
    assert actual.dtype == jnp.bfloat16
    assert_close(actual, norm(x.astype(jnp.float32)), kind="bf16")


def test_large_inputs_stay_finite():
    assert jnp.isfinite(layer_norm(1e18 * X)).all()
    assert jnp.isfinite(layer_norm(jnp.zeros((2, 3)))).all()


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="num_groups=4 must divide the 6 channels"):
        group_norm(X, num_groups=4)
