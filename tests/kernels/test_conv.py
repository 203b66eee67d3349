"""The convolution kernel against the reference, over the named shapes and drawn ones."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.conv import conv
from kernels.conv.specs import SPECS
from kernels.conv.xla import twice_differentiated_conv
from tests.close import assert_close
from tests.kernels.gradients import assert_same, random
from zoo.functional.conv import conv as reference

BOTH = pytest.mark.parametrize("conv", [conv, twice_differentiated_conv])


@BOTH
@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(name, conv):
    """Each real shape, with a batch of 2 and at most 24 channels: the code path stays the same."""
    spec = SPECS[name]
    spec = dataclasses.replace(
        spec, batch=2, in_dim=min(spec.in_dim, 24), out_dim=min(spec.out_dim, 24)
    )
    x = random((spec.batch, spec.size, spec.size, spec.in_dim), 0)
    kernel = random((spec.window, spec.window, spec.in_dim, spec.out_dim), 1)
    options = {"strides": spec.stride, "padding": spec.pad}
    assert_same(
        partial(conv, **options),
        partial(reference, **options),
        x,
        kernel,
        random((spec.out_dim,), 2),
    )


@BOTH
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_drawn_shapes(conv, data):
    """Any number of axes, window, stride, padding, dilation and dtype."""
    draw = data.draw
    num_axes = draw(st.integers(1, 3), label="axes")
    window = tuple(draw(st.lists(st.integers(1, 3), min_size=num_axes, max_size=num_axes)))
    dilation = draw(st.integers(1, 2), label="dilation")
    sizes = [dilation * (k - 1) + 1 + draw(st.integers(0, 4)) for k in window]
    in_dim, out_dim = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from(["float32", "bfloat16"]), label="dtype")
    options = {
        "strides": draw(st.integers(1, 3), label="strides"),
        "padding": draw(st.sampled_from(["SAME", "VALID", 1, [(0, 2)] * num_axes]), label="pad"),
        "dilation": dilation,
    }
    x = random((draw(st.integers(1, 3)), *sizes, in_dim), 0, dtype)
    kernel = random((*window, in_dim, out_dim), 1, dtype)
    assert_same(
        partial(conv, **options),
        partial(reference, **options),
        x,
        kernel,
        kind="leaf" if dtype == "float32" else "bf16",
    )


def test_groups_are_the_reference():
    x, kernel = random((2, 5, 5, 4), 0), random((3, 3, 2, 6), 1)
    assert_same(partial(conv, groups=2), partial(reference, groups=2), x, kernel)


@BOTH
@pytest.mark.parametrize(("in_dim", "window", "stride"), [(3, 3, 1), (6, 4, 2), (6, 3, 2)])
def test_second_derivatives(in_dim, window, stride, conv):
    """A gradient penalty differentiates a gradient."""
    x, kernel = random((2, 6, 6, in_dim), 0), random((window, window, in_dim, 4), 1)

    def penalty(function):
        inner = jax.grad(lambda x, k: jnp.sum(jnp.sin(function(x, k, strides=stride))))
        return jax.jit(jax.grad(lambda x, k: jnp.sum(inner(x, k) ** 2), (0, 1)))(x, kernel)

    assert_close(penalty(conv), penalty(reference))


def test_wrong_channels_are_named():
    """The reference says it."""
    with pytest.raises(ValueError, match=r"the input has 3 channels, the kernel .* wants 4"):
        conv(random((2, 5, 5, 3), 0), random((3, 3, 4, 6), 1))
