"""Convolutions against the sums in their docstrings, and against each other as transposes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.conv import conv, conv_transpose


def conv_by_definition(x, kernel, bias, stride, dilation, pad, groups):
    """y[b, i, j, o] = Σ x[b, s·i + d·u - p, s·j + d·v - p, c] · kernel[u, v, c, o] + bias[o]."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    window, in_per_group, out_dim = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    size = [(n - dilation * (window - 1) - 1) // stride + 1 for n in x.shape[1:3]]
    y = np.zeros((x.shape[0], *size, out_dim))
    for i, j, o in itertools.product(*map(range, y.shape[1:])):
        first = o // (out_dim // groups) * in_per_group
        for u, v in itertools.product(range(window), repeat=2):
            seen = x[:, stride * i + dilation * u, stride * j + dilation * v]
            y[:, i, j, o] += seen[:, first : first + in_per_group] @ kernel[u, v, :, o]
    return y + np.asarray(bias)


@pytest.mark.parametrize(
    ("stride", "dilation", "pad", "groups"),
    [(1, 1, 0, 1), (2, 1, 1, 1), (1, 2, 2, 2), (3, 2, 1, 4)],
)
def test_conv_is_the_sum_in_its_docstring(stride, dilation, pad, groups):
    x, kernel, bias = random(2, 9, 8, 4), random(3, 3, 4 // groups, 8, seed=1), random(8, seed=2)
    actual = conv(x, kernel, bias, strides=stride, padding=pad, dilation=dilation, groups=groups)
    assert_close(actual, conv_by_definition(x, kernel, bias, stride, dilation, pad, groups))


@pytest.mark.parametrize("num_axes", [1, 2, 3])
def test_same_padding_divides_the_size_by_the_stride_rounding_up(num_axes):
    x = random(2, *[7] * num_axes, 2)
    kernel = random(*[3] * num_axes, 2, 5)
    for stride, size in [(1, 7), (2, 4), (3, 3)]:
        assert conv(x, kernel, strides=stride).shape == (2, *[size] * num_axes, 5)


windows = st.fixed_dictionaries(
    {
        "num_axes": st.integers(1, 2),
        "window": st.integers(1, 4),
        "strides": st.integers(1, 3),
        "dilation": st.integers(1, 2),
        "groups": st.sampled_from([1, 2]),
        "padding": st.one_of(st.sampled_from(["SAME", "VALID"]), st.integers(0, 2)),
        "size": st.integers(1, 6),
        "extra": st.integers(0, 2),
    }
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(windows)
def test_conv_transpose_is_the_gradient_of_conv(case):
    """For any size that `conv` maps to n, the transpose from n is its gradient in the input."""
    num_axes, stride, padding = case["num_axes"], case["strides"], case["padding"]
    reach = case["dilation"] * (case["window"] - 1) + 1
    extra = min(case["extra"], stride - 1)  # more rows and `conv` would take another step
    if padding == "SAME":
        large, extra = stride * case["size"], 0
    else:
        rows = 0 if padding == "VALID" else padding
        large = stride * (case["size"] - 1) + reach - 2 * rows + extra
        if large < 1:
            return  # the padding crops everything
    settings_ = {"strides": stride, "dilation": case["dilation"], "groups": case["groups"]}
    kernel = random(*[case["window"]] * num_axes, 4 // case["groups"], 6)
    y = random(2, *[case["size"]] * num_axes, 6, seed=1)

    def forward(x):
        return conv(x, kernel, padding=padding, **settings_)

    x = jax.ShapeDtypeStruct((2, *[large] * num_axes, 4), jnp.float32)
    assert jax.eval_shape(forward, x).shape == y.shape
    (expected,) = jax.linear_transpose(forward, x)(y)
    actual = conv_transpose(y, kernel, padding=padding, output_padding=extra, **settings_)
    assert_close(actual, expected)


def test_conv_transpose_writes_what_its_docstring_says():
    x, kernel, bias = random(1, 4, 3), random(3, 2, 3, seed=1), random(2, seed=2)
    expected = np.zeros((1, 2 * 3 + 3, 2)) + np.asarray(bias)
    for i, u in itertools.product(range(4), range(3)):
        expected[0, 2 * i + u] += np.asarray(kernel[u] @ x[0, i])
    actual = conv_transpose(x, kernel, bias, strides=2, padding="VALID")
    assert_close(actual, expected)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: conv(random(1, 5, 5, 3), random(3, 3, 2, 4)), "has 3 channels, .* wants 2"),
    (lambda: conv(random(1, 5, 5, 4), random(3, 3, 2, 3), groups=2), "groups=2 must divide"),
    (lambda: conv(random(1, 5, 5, 2), random(3, 3, 2, 4), strides=(1, 1, 1)), "strides=.* 2 sp"),
    (lambda: conv(random(1, 5, 5, 2), random(3, 3, 2, 4), padding=(1,)), "padding=.* 2 spatial"),
    (lambda: conv(random(1, 5, 5, 2), random(3, 3, 2, 4), padding=-1), "padding=-1 .*negative"),
    (lambda: conv(random(1, 2, 2, 2), random(3, 3, 2, 4), padding="VALID"), "2 rows.* spans 3"),
    (lambda: conv(random(1, 2), random(2, 4)), "1 to 3 spatial axes"),
    (lambda: conv_transpose(random(1, 5, 3), random(3, 4, 3), groups=2), "groups=2 must divide"),
])  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bfloat16_stays_bfloat16():
    x, kernel = random(2, 6, 6, 8), random(3, 3, 8, 8, seed=1)
    low = [a.astype(jnp.bfloat16) for a in (x, kernel)]
    for function in (conv, conv_transpose):
        actual = function(*low)
        assert actual.dtype == jnp.bfloat16
        assert_close(actual, function(x, kernel), kind="bf16")
