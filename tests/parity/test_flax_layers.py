"""Every layer against the stock one of Flax: output, gradients, statistics, from equal weights."""

from typing import Any

import jax.numpy as jnp
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized, run
from zoo import layers


def assert_same(build_ours, build_stock, x) -> None:
    """Give both modules the same random weights; everything that they compute must agree."""
    ours, stock = randomized(build_ours), nnx.eval_shape(build_stock)
    nnx.update(stock, nnx.state(ours))
    actual, expected = run(ours, x), run(stock, x)
    assert_close(actual._asdict(), expected._asdict())


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("batch", [(7,), (2, 3)])
def test_linear(use_bias, batch):
    assert_same(
        lambda: layers.Linear(5, 4, rngs=nnx.Rngs(0), use_bias=use_bias),
        lambda: nnx.Linear(5, 4, rngs=nnx.Rngs(0), use_bias=use_bias),
        random(*batch, 5),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": (3, 3)},
        {"kernel_size": (5, 2), "strides": (2, 1), "use_bias": False},
        {"kernel_size": (3, 3), "padding": "VALID", "strides": 2},
        {"kernel_size": (3, 3), "padding": ((1, 2), (0, 1)), "groups": 2},
        {"kernel_size": (3, 3), "dilation": 2, "strides": 2},
        {"kernel_size": (4,), "strides": 3, "groups": 4},
        {"kernel_size": (2, 3, 2), "padding": 1},
    ],
)
def test_conv(settings):
    stock_settings: dict[str, Any] = dict(settings)
    stock_settings["kernel_dilation"] = stock_settings.pop("dilation", 1)
    stock_settings["feature_group_count"] = stock_settings.pop("groups", 1)
    assert_same(
        lambda: layers.Conv(4, 8, rngs=nnx.Rngs(0), **settings),
        lambda: nnx.Conv(4, 8, rngs=nnx.Rngs(0), **stock_settings),
        random(2, *[9] * len(settings["kernel_size"]), 4),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": (3, 3), "strides": (1, 1)},
        {"kernel_size": (4, 4), "strides": (2, 2)},
        {"kernel_size": (4, 4), "strides": (2, 2), "padding": "VALID", "use_bias": False},
        {"kernel_size": (5,), "strides": (3,)},
    ],
)
def test_conv_transpose(settings):
    assert_same(
        lambda: layers.ConvTranspose(4, 6, rngs=nnx.Rngs(0), **settings),
        lambda: nnx.ConvTranspose(4, 6, rngs=nnx.Rngs(0), transpose_kernel=True, **settings),
        random(2, *[5] * len(settings["kernel_size"]), 4),
    )


def test_embed():
    tokens = jnp.array([[0, 3, 3], [9, 1, 0]])
    ours = randomized(lambda: layers.Embed(10, 4, rngs=nnx.Rngs(0)))
    stock = randomized(lambda: nnx.Embed(10, 4, rngs=nnx.Rngs(0)))
    ours.table.set_value(stock.embedding[...])
    assert_close(ours(tokens), stock(tokens))
    gradient, other = (nnx.grad(lambda m: (m(tokens) ** 3).sum())(m) for m in (ours, stock))
    assert_close(gradient.table[...], other.embedding[...])


def test_batch_norm_in_training():
    assert_same(
        lambda: layers.BatchNorm(6, decay=0.7, epsilon=1e-3),
        lambda: nnx.BatchNorm(6, momentum=0.7, epsilon=1e-3, rngs=nnx.Rngs(0)),
        2 + 3 * random(4, 5, 5, 6),
    )


def test_batch_norm_in_evaluation():
    assert_same(
        lambda: nnx.view(layers.BatchNorm(6), deterministic=True),
        lambda: nnx.BatchNorm(6, use_running_average=True, rngs=nnx.Rngs(0)),
        random(4, 6),
    )


@pytest.mark.parametrize("use_bias", [True, False])
def test_layer_norm(use_bias):
    assert_same(
        lambda: layers.LayerNorm(6, epsilon=1e-3, use_bias=use_bias),
        lambda: nnx.LayerNorm(6, epsilon=1e-3, use_bias=use_bias, rngs=nnx.Rngs(0)),
        random(4, 5, 6),
    )


def test_group_norm():
    assert_same(
        lambda: layers.GroupNorm(6, num_groups=3, epsilon=1e-3),
        lambda: nnx.GroupNorm(6, num_groups=3, epsilon=1e-3, rngs=nnx.Rngs(0)),
        random(4, 5, 5, 6),
    )


def test_rms_norm():
    assert_same(
        lambda: layers.RMSNorm(6, epsilon=1e-3),
        lambda: nnx.RMSNorm(6, epsilon=1e-3, rngs=nnx.Rngs(0)),
        random(4, 5, 6),
    )
