"""The layer norm kernel against the reference, over the named shapes and drawn ones."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layer_norm import layer_norm
from kernels.layer_norm.specs import SPECS
from tests.kernels.gradients import assert_same, random
from zoo.functional.norm import layer_norm as reference


@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(name):
    spec = SPECS[name]
    arguments = random((*spec.leading, spec.dim), 0), random((spec.dim,), 1), random((spec.dim,), 2)
    assert_same(layer_norm, reference, *arguments, forward_mode=False)


@settings(max_examples=10, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    dim=st.integers(2, 9),
    parameters=st.integers(0, 2),
    epsilon=st.sampled_from([1e-12, 1e-5, 1e-2]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_drawn_shapes(leading, dim, parameters, epsilon, dtype):
    vectors = [random((dim,), 1 + i) for i in range(parameters)]
    assert_same(
        partial(layer_norm, epsilon=epsilon),
        partial(reference, epsilon=epsilon),
        random((*leading, dim), 0, dtype),
        *vectors,
        kind="leaf" if dtype == "float32" else "bf16",
        forward_mode=False,
    )
