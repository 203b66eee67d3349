"""What layers add to the functions: their start, their dtype, and their complaints."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional import init
from zoo.functional.ops import Ops
from zoo.layers import Conv, ConvTranspose, Embed, Linear, Standardize


def test_kernels_start_from_the_given_initialiser_and_biases_from_zero(rngs):
    linear = Linear(2, 3, rngs=rngs, kernel_init=init.ones)
    assert linear.kernel[...].tolist() == [[1] * 3] * 2
    assert linear.bias[...].tolist() == [0] * 3


def test_a_transposed_kernel_starts_with_the_variance_of_its_own_fan_in(rngs):
    layer = ConvTranspose(64, 16, 4, rngs=rngs, kernel_init=init.he_normal)
    assert layer.kernel.shape == (4, 4, 16, 64)
    assert np.var(layer.kernel[...]) == pytest.approx(2 / (16 * 64), rel=0.05)


def test_convolution_kernels_have_the_documented_shape(rngs):
    assert Conv(4, 8, 3, groups=2, rngs=rngs).kernel.shape == (3, 3, 2, 8)
    assert ConvTranspose(4, 8, (3,), groups=2, rngs=rngs).kernel.shape == (3, 4, 4)


def test_conv_transpose_enlarges_by_the_stride(rngs):
    layer = ConvTranspose(3, 5, 4, strides=2, rngs=rngs)
    assert layer(random(2, 7, 6, 3)).shape == (2, 14, 12, 5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Linear(8, 4, rngs=nnx.Rngs(0)), (2, 8)),
        (Conv(8, 4, 3, rngs=nnx.Rngs(0)), (2, 5, 5, 8)),
        (ConvTranspose(8, 4, 3, strides=2, rngs=nnx.Rngs(0)), (2, 5, 5, 8)),
    ],
)
def test_the_input_decides_the_dtype_of_the_arithmetic(layer, shape):
    x = random(*shape)
    low = layer(x.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    assert layer(x).dtype == jnp.float32
    assert_close(low, layer(x), kind="bf16")


def test_layers_call_the_injected_operation(rngs):
    calls = []

    def counted(name):
        operation = getattr(Ops(), name)
        return lambda *args, **kwargs: calls.append(name) or operation(*args, **kwargs)

    names = ("dense", "conv", "conv_transpose")
    ops = Ops(**{name: counted(name) for name in names})
    Linear(2, 2, rngs=rngs, ops=ops)(random(1, 2))
    Conv(2, 2, 3, rngs=rngs, ops=ops)(random(1, 4, 4, 2))
    ConvTranspose(2, 2, 3, rngs=rngs, ops=ops)(random(1, 4, 4, 2))
    assert tuple(calls) == names


def test_an_embedding_is_a_row_of_its_table(rngs):
    embed = Embed(5, 3, rngs=rngs)
    assert_close(embed(jnp.array([4])), embed.table[4:5])


class TestStandardize:
    """Raw inputs become float32 with the training data's statistics taken out."""

    def test_pixels(self):
        pixels = np.array([[[[0, 255, 10]]]], np.uint8)
        y = Standardize([0.0, 127.5, 10.0], [1.0, 127.5, 2.0])(jnp.asarray(pixels))
        assert y.dtype == jnp.float32
        assert y.ravel().tolist() == [0, 1, 0]

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


@pytest.mark.parametrize(("call", "message"), [
    (lambda r: Linear(784, 10, rngs=r)(random(2, 28)), "28 features, Linear expects 784; did you"),
    (lambda r: Conv(3, 8, 3, rngs=r)(random(2, 3, 8, 8)), "8, Conv expects 3 channels; are the"),
    (lambda r: Conv(3, 8, 3, rngs=r)(random(2, 8, 3)), r"2 spatial axes.*\(2, 8, 3\)"),
    (lambda r: ConvTranspose(3, 8, 3, rngs=r)(random(8, 8, 3)), "ConvTranspose expects .*batch"),
    (lambda r: Conv(3, 8, 3, groups=2, rngs=r), "groups=2 must divide in_dim=3 and out_dim=8"),
    (lambda r: Conv(3, 8, 3, groups=0, rngs=r), "groups=0 must divide"),
])  # fmt: skip
def test_wrong_arguments_are_named(rngs, call, message):
    with pytest.raises(ValueError, match=message):
        call(rngs)
