"""The pooling kernel against the reference, ties included."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.max_pool import max_pool
from kernels.max_pool.specs import SPECS
from tests.kernels.gradients import assert_same, random
from zoo.functional.pooling import max_pool as reference


@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(name):
    """Each real shape with a batch of 2 and at most 48 channels, after a relu, so that most tie."""
    spec = SPECS[name]
    x = jnp.maximum(random((2, spec.size, spec.size, min(spec.dim, 48)), 0) - 1, 0)
    options = {"window": spec.window, "strides": spec.stride, "padding": spec.pad}
    pools = partial(max_pool, **options), partial(reference, **options)
    # JAX's own forward mode breaks ties at a padded edge otherwise than its reverse mode.
    assert_same(*pools, x, forward_mode=False)
    assert_same(*pools, random(x.shape, 1))


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_drawn_shapes(data):
    """Few different numbers, so that nearly every window has a tie."""
    draw = data.draw
    num_axes = draw(st.integers(1, 3), label="axes")
    window = draw(st.integers(1, 3), label="window")
    options = {
        "window": window,
        "strides": draw(st.sampled_from([None, 1, 2, 3]), label="strides"),
        "padding": draw(st.sampled_from(["SAME", "VALID"]), label="padding"),
    }
    sizes = [window + draw(st.integers(0, 5)) for _ in range(num_axes)]
    shape = (draw(st.integers(1, 3)), *sizes, draw(st.integers(1, 3)))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, shape), "float32")
    pools = partial(max_pool, **options), partial(reference, **options)
    assert_same(*pools, x, forward_mode=False)


def test_bfloat16():
    assert_same(max_pool, reference, random((2, 6, 6, 3), 0, "bfloat16"), kind="bf16")
