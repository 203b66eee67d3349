"""Dropout: how much is dropped, that the mean stays, and that the key decides."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from zoo.layers import Dropout

ONES = jnp.ones((100, 100))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_dropped_and_the_rest_scaled_up(rate):
    y = Dropout(rate)(ONES, rngs=nnx.Rngs(dropout=0))
    # 10,000 draws: four standard errors are 0.02 at most.
    assert jnp.mean(y == 0) == pytest.approx(rate, abs=0.02)
    assert jnp.unique(y).tolist() == pytest.approx([0, 1 / (1 - rate)])
    assert jnp.mean(y) == pytest.approx(1, abs=0.02 / (1 - rate))


def test_the_key_decides():
    layer = Dropout(0.5)
    first, again, other = (layer(ONES, rngs=nnx.Rngs(dropout=seed)) for seed in (1, 1, 2))
    assert jnp.array_equal(first, again)
    assert 0.4 < jnp.mean(first == other) < 0.6


def test_each_call_draws_anew():
    rngs = nnx.Rngs(dropout=0)
    layer = Dropout(0.5)
    assert not jnp.array_equal(layer(ONES, rngs=rngs), layer(ONES, rngs=rngs))


def test_the_gradient_passes_where_the_value_did():
    def f(x):
        return Dropout(0.5)(x, rngs=nnx.Rngs(dropout=3))

    assert jnp.array_equal(jax.grad(lambda x: f(x).sum())(ONES), f(ONES))


def test_a_deterministic_view_drops_nothing_and_leaves_the_layer_as_it_was():
    layer = Dropout(0.5)
    assert nnx.view(layer, deterministic=True)(ONES) is ONES
    assert (layer(ONES, rngs=nnx.Rngs(dropout=0)) == 0).any()


def test_rate_zero_needs_no_key():
    assert Dropout(0.0)(ONES) is ONES


def test_bfloat16_stays_bfloat16():
    y = Dropout(0.5)(ONES.astype(jnp.bfloat16), rngs=nnx.Rngs(dropout=0))
    assert y.dtype == jnp.bfloat16


def test_a_missing_key_says_what_to_do():
    with pytest.raises(ValueError, match=r"rate 0.5 .*rngs=nnx.Rngs\(dropout=seed\).*nnx.view"):
        Dropout(0.5)(ONES)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(ValueError, match=rf"rate={rate} must lie in \[0, 1\)"):
        Dropout(rate)
