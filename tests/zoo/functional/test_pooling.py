"""Pooling against a loop over windows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.pooling import avg_pool, global_avg_pool, global_max_pool, max_pool


def pool_by_definition(x, reduce, window, stride, pad, fill):
    x = np.pad(np.asarray(x), ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
    size = [(n - window) // stride + 1 for n in x.shape[1:3]]
    y = np.zeros((x.shape[0], *size, x.shape[3]))
    for i, j in itertools.product(*map(range, size)):
        seen = x[:, stride * i : stride * i + window, stride * j : stride * j + window]
        y[:, i, j] = reduce(seen, axis=(1, 2))
    return y


@pytest.mark.parametrize(("window", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 3, 1)])
def test_pooling_is_the_loop_over_windows(window, stride, pad):
    x = random(2, 7, 6, 3)
    actual = max_pool(x, window, strides=stride, padding=pad)
    assert_close(actual, pool_by_definition(x, np.max, window, stride, pad, -np.inf))
    actual = avg_pool(x, window, strides=stride, padding=pad)
    assert_close(actual, pool_by_definition(x, np.mean, window, stride, pad, 0))
    actual = avg_pool(x, window, strides=stride, padding=pad, count_padding=False)
    assert_close(actual, pool_by_definition(x, np.nanmean, window, stride, pad, np.nan))


def test_strides_default_to_the_window_and_leftover_rows_are_ignored():
    assert max_pool(random(1, 7, 7, 1), 2).shape == (1, 3, 3, 1)
    assert avg_pool(random(1, 7, 1), 2).shape == (1, 3, 1)


def test_global_pooling_is_over_all_positions():
    x = random(2, 4, 3, 5)
    assert_close(global_max_pool(x), np.asarray(x).max((1, 2)))
    assert_close(global_avg_pool(x), np.asarray(x).mean((1, 2)))


def test_the_gradient_of_a_tie_goes_to_the_first():
    grad = jax.grad(lambda x: max_pool(x, 2).sum())(jnp.zeros((1, 2, 2, 1)))
    assert grad.ravel().tolist() == [1, 0, 0, 0]


def test_averages_of_bfloat16_count_past_256():
    x = jnp.ones((1, 32, 32, 1), jnp.bfloat16)
    assert avg_pool(x, 32).item() == 1
    assert global_avg_pool(x).item() == 1
    assert avg_pool(x, 32).dtype == max_pool(x, 32).dtype == jnp.bfloat16


def test_windows_that_see_no_input_are_refused():
    with pytest.raises(ValueError, match=r"spatial axis 1 has 1 rows.* spans 2"):
        max_pool(random(1, 4, 1, 1), 2)
    with pytest.raises(ValueError, match="without any input"):
        max_pool(random(1, 4, 4, 1), 2, padding=2)
