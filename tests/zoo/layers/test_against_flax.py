"""Every layer against the stock one of Flax: output, gradients and statistics, from the same weights."""

import jax.numpy as jnp
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomize, run
from zoo import layers


def assert_same(ours: nnx.Module, stock: nnx.Module, x, names=(), transposed=()) -> None:
    """Copy random weights into the stock module, run both, compare everything.

    `names` are pairs (ours, stock) where they differ; `transposed` are stock kernels whose last two
    axes stand the other way round.
    """
    randomize(ours)
    names, variables = dict(names), nnx.to_flat_state(nnx.state(ours))
    for (name,), variable in variables:
        name, value = names.get(name, name), variable[...]
        getattr(stock, name).set_value(jnp.swapaxes(value, -1, -2) if name in transposed else value)
    actual, expected = run(ours, x), run(stock, x)
    assert_close(actual.output, expected.output)
    if jnp.issubdtype(x.dtype, jnp.floating):
        assert_close(actual.input_gradient, expected.input_gradient)
    for kind in ("gradients", "statistics"):
        for name, value in getattr(actual, kind).items():
            name = names.get(name, name)
            other = getattr(expected, kind)[name]
            assert_close(value, jnp.swapaxes(other, -1, -2) if name in transposed else other)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("batch", [(7,), (2, 3)])
def test_linear(rngs, use_bias, batch):
    ours = layers.Linear(5, 4, rngs=rngs, use_bias=use_bias)
    stock = nnx.Linear(5, 4, rngs=rngs, use_bias=use_bias)
    assert_same(ours, stock, random(*batch, 5))


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
def test_conv(rngs, settings):
    ours = layers.Conv(4, 8, rngs=rngs, **settings)
    dilation = settings.get("dilation", 1)
    stock_settings = {
        "kernel_dilation": dilation,
        "feature_group_count": settings.get("groups", 1),
        **{k: v for k, v in settings.items() if k not in ("dilation", "groups")},
    }
    stock = nnx.Conv(4, 8, rngs=rngs, **stock_settings)
    assert_same(ours, stock, random(2, *[9] * len(settings["kernel_size"]), 4))


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": (3, 3), "strides": (1, 1)},
        {"kernel_size": (4, 4), "strides": (2, 2)},
        {"kernel_size": (4, 4), "strides": (2, 2), "padding": "VALID", "use_bias": False},
        {"kernel_size": (5,), "strides": (3,)},
    ],
)
def test_conv_transpose(rngs, settings):
    ours = layers.ConvTranspose(4, 6, rngs=rngs, **settings)
    stock = nnx.ConvTranspose(4, 6, rngs=rngs, transpose_kernel=True, **settings)
    assert_same(ours, stock, random(2, *[5] * len(settings["kernel_size"]), 4))


def test_embed(rngs):
    tokens = jnp.array([[0, 3, 3], [9, 1, 0]])
    ours, stock = layers.Embed(10, 4, rngs=rngs), nnx.Embed(10, 4, rngs=rngs)
    randomize(ours)
    stock.embedding.set_value(ours.table[...])
    assert_close(ours(tokens), stock(tokens))
    gradients = [
        nnx.grad(lambda m: (m(tokens) ** 3).sum())(module) for module in (ours, stock)
    ]
    assert_close(gradients[0].table[...], gradients[1].embedding[...])


def test_batch_norm_in_training(rngs):
    ours = layers.BatchNorm(6, decay=0.7, epsilon=1e-3)
    stock = nnx.BatchNorm(6, momentum=0.7, epsilon=1e-3, rngs=rngs)
    assert_same(ours, stock, 2 + 3 * random(4, 5, 5, 6))


def test_batch_norm_in_evaluation(rngs):
    ours = nnx.view(layers.BatchNorm(6), deterministic=True)
    stock = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
    assert_same(ours, stock, random(4, 6))


@pytest.mark.parametrize("use_bias", [True, False])
def test_layer_norm(rngs, use_bias):
    ours = layers.LayerNorm(6, epsilon=1e-3, use_bias=use_bias)
    stock = nnx.LayerNorm(6, epsilon=1e-3, use_bias=use_bias, rngs=rngs)
    assert_same(ours, stock, random(4, 5, 6))


def test_group_norm(rngs):
    ours = layers.GroupNorm(6, num_groups=3, epsilon=1e-3)
    stock = nnx.GroupNorm(6, num_groups=3, epsilon=1e-3, rngs=rngs)
    assert_same(ours, stock, random(4, 5, 5, 6))


def test_rms_norm(rngs):
    ours, stock = layers.RMSNorm(6, epsilon=1e-3), nnx.RMSNorm(6, epsilon=1e-3, rngs=rngs)
    assert_same(ours, stock, random(4, 5, 6))
