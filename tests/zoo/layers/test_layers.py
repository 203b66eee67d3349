"""What layers add to the functions: their start, their dtype, and their complaints."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized
from zoo.functional import init
from zoo.functional.ops import Ops
from zoo.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Embed,
    GroupNorm,
    LayerNorm,
    Linear,
    RMSNorm,
    Standardize,
)


def abstract(layer, *sizes, **settings):
    """A layer of which only the shapes exist, which nothing needs to compile."""
    return nnx.eval_shape(lambda: layer(*sizes, rngs=nnx.Rngs(0), **settings))


def test_kernels_start_from_the_given_initialiser_and_biases_from_zero(rngs):
    linear = Linear(2, 3, rngs=rngs, kernel_init=init.ones)
    assert linear.kernel[...].tolist() == [[1] * 3] * 2
    assert nnx.to_pure_dict(nnx.state(linear))["bias"].tolist() == [0] * 3


def test_a_transposed_kernel_starts_with_the_variance_of_its_own_fan_in(rngs):
    shapes = []

    def initializer(key, shape, dtype):
        shapes.append(shape)
        return init.zeros(key, shape, dtype)

    layer = ConvTranspose(64, 16, 4, rngs=rngs, kernel_init=initializer)
    assert shapes == [(4, 4, 64, 16)]  # in, out: the order in which fan_in is counted
    assert layer.kernel.shape == (4, 4, 16, 64)


def test_convolution_kernels_have_the_documented_shape():
    assert abstract(Conv, 4, 8, 3, groups=2).kernel.shape == (3, 3, 2, 8)
    assert abstract(ConvTranspose, 4, 8, (3,), groups=2).kernel.shape == (3, 4, 4)


def test_conv_transpose_enlarges_by_the_stride():
    layer = abstract(ConvTranspose, 3, 5, 4, strides=2)
    y = nnx.eval_shape(lambda layer, x: layer(x), layer, random(2, 7, 6, 3))
    assert y.shape == (2, 14, 12, 5)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda rngs: Linear(8, 4, rngs=rngs), (2, 8)),
        (lambda rngs: Conv(8, 4, 3, rngs=rngs), (2, 5, 5, 8)),
        (lambda rngs: ConvTranspose(8, 4, 3, strides=2, rngs=rngs), (2, 5, 5, 8)),
    ],
)
def test_the_input_decides_the_dtype_of_the_arithmetic(build, shape):
    layer, x = randomized(lambda: build(nnx.Rngs(0))), random(*shape)
    low = layer(x.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    assert layer(x).dtype == jnp.float32
    assert_close(low, layer(x), kind="bf16")


def test_layers_call_the_injected_operation():
    calls = []

    def counted(name):
        operation = getattr(Ops(), name)
        return lambda *args, **kwargs: calls.append(name) or operation(*args, **kwargs)

    ops = Ops(**{field.name: counted(field.name) for field in dataclasses.fields(Ops)})
    image = random(1, 4, 4, 2)
    for layer in (
        abstract(Linear, 2, 2, ops=ops),
        abstract(Conv, 2, 2, 3, ops=ops),
        abstract(ConvTranspose, 2, 2, 3, ops=ops),
        BatchNorm(2, ops=ops),
        LayerNorm(2, ops=ops),
        GroupNorm(2, num_groups=1, ops=ops),
        RMSNorm(2, ops=ops),
    ):
        nnx.eval_shape(lambda layer, x: layer(x), layer, image)
    assert calls == [
        "dense",
        "conv",
        "conv_transpose",
        "batch_norm",
        "layer_norm",
        "group_norm",
        "rms_norm",
    ]


def test_an_embedding_is_a_row_of_its_table():
    embed = randomized(lambda: Embed(5, 3, rngs=nnx.Rngs(0)))
    assert_close(embed(jnp.array([4])), embed.table[4:5])


class TestStandardize:
    """Raw inputs become float32 with the training data's statistics taken out."""

    def test_pixels(self):
        pixels = np.array([[[[0, 255, 10]]]], np.uint8)
        y = Standardize([0.0, 127.5, 10.0], [1.0, 127.5, 2.0])(jnp.asarray(pixels))
        assert y.dtype == jnp.float32
        assert_close(y.ravel(), [0, 1, 0])

    def test_one_statistic_for_all(self):
        assert Standardize(1.0, 2.0)(jnp.array([[3, 5]])).tolist() == [[1, 2]]

    def test_no_optimiser_sees_the_statistics(self):
        state = nnx.state(Standardize([1.0], [2.0]))
        assert [type(v) for _, v in nnx.to_flat_state(state)] == [nnx.BatchStat] * 2

    @pytest.mark.parametrize(
        ("mean", "std", "message"),
        [
            ([0.0], [0.0], "give a constant feature the std 1"),
            ([np.nan], [1.0], "must be finite"),
            ([0.0, 1.0], [1.0], r"mean has shape \(2,\), std \(1,\)"),
        ],
    )
    def test_bad_statistics(self, mean, std, message):
        with pytest.raises(ValueError, match=message):
            Standardize(mean, std)

    def test_wrong_number_of_features(self):
        with pytest.raises(ValueError, match="last axis of x is 3, the statistics are for 2"):
            Standardize([0.0, 0.0], [1.0, 1.0])(random(4, 3))


@pytest.mark.parametrize(("layer", "shape", "message"), [
    ((Linear, 784, 10), (2, 28), "28 features, Linear expects 784; did you forget to flatten"),
    ((Conv, 3, 8, 3), (2, 3, 8, 8), "8, Conv expects 3 channels; are the channels the last axis"),
    ((Conv, 3, 8, 3), (2, 8, 3), r"2 spatial axes, channels\], got shape \(2, 8, 3\)"),
    ((ConvTranspose, 3, 8, 3), (8, 8, 3), "ConvTranspose expects .*batch"),
])  # fmt: skip
def test_a_wrong_input_is_named(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        abstract(*layer)(random(*shape))


@pytest.mark.parametrize("groups", [2, 0])
@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
def test_groups_must_divide_the_channels(layer, groups):
    with pytest.raises(ValueError, match=f"groups={groups} must divide in_dim=3 and out_dim=8"):
        abstract(layer, 3, 8, 3, groups=groups)
