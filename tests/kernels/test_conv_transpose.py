"""The transposed-convolution kernel against the reference, over named shapes and drawn ones."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.conv_transpose import conv_transpose
from kernels.conv_transpose.specs import SPECS
from tests.close import assert_close
from tests.kernels.gradients import assert_same, random
from zoo.functional.conv import conv_transpose as reference


@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(name):
    """Each real shape, with a batch of 2 and at most 24 channels: the code path stays the same."""
    spec = SPECS[name]
    spec = dataclasses.replace(
        spec, batch=2, in_dim=min(spec.in_dim, 24), out_dim=min(spec.out_dim, 24)
    )
    assert_same(
        partial(conv_transpose, strides=spec.stride),
        partial(reference, strides=spec.stride),
        random((spec.batch, spec.size, spec.size, spec.in_dim), 0),
        random((spec.window, spec.window, spec.out_dim, spec.in_dim), 1),
        random((spec.out_dim,), 2),
    )


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_drawn_shapes(data):
    """Any number of axes, window, stride, padding, output padding, dilation and dtype."""
    draw = data.draw
    num_axes = draw(st.integers(1, 3), label="axes")

    def per_axis(low, high, label):
        return tuple(
            draw(st.lists(st.integers(low, high), min_size=num_axes, max_size=num_axes), label)
        )

    window, strides = per_axis(1, 5, "window"), per_axis(1, 3, "strides")
    sizes = per_axis(2, 5, "sizes")
    in_dim, out_dim = draw(st.sampled_from([1, 5, 8])), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from(["float32", "bfloat16"]), label="dtype")
    options = {
        "strides": strides,
        "padding": draw(st.sampled_from(["SAME", "VALID", 0, [(0, 1)] * num_axes]), label="pad"),
        "output_padding": per_axis(0, 2, "output padding"),
        "dilation": draw(st.sampled_from([1, 1, 2]), label="dilation"),
    }
    x = random((draw(st.integers(1, 3)), *sizes, in_dim), 0, dtype)
    kernel = random((*window, out_dim, in_dim), 1, dtype)
    assert_same(
        partial(conv_transpose, **options),
        partial(reference, **options),
        x,
        kernel,
        kind="leaf" if dtype == "float32" else "bf16",
    )


def test_groups_are_the_reference():
    x, kernel = random((2, 5, 5, 4), 0), random((3, 3, 2, 4), 1)
    options = {"groups": 2, "strides": 2}
    assert_same(partial(conv_transpose, **options), partial(reference, **options), x, kernel)


def test_second_derivatives():
    """A gradient penalty differentiates a gradient."""
    x, kernel = random((2, 5, 5, 3), 0), random((4, 4, 4, 3), 1)

    def penalty(function):
        inner = jax.grad(lambda x, k: jnp.sum(jnp.sin(function(x, k, strides=2))))
        return jax.jit(jax.grad(lambda x, k: jnp.sum(inner(x, k) ** 2), (0, 1)))(x, kernel)

    assert_close(penalty(conv_transpose), penalty(reference))
