"""The dense kernel against the reference, over the named shapes and drawn ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.dense import dense
from kernels.dense.specs import SPECS
from tests.kernels.gradients import assert_same, random
from zoo.functional.dense import dense as reference


@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(name):
    spec = SPECS[name]
    x, kernel = random((*spec.leading, spec.in_dim), 0), random((spec.in_dim, spec.out_dim), 1)
    assert_same(dense, reference, x, kernel, random((spec.out_dim,), 2))


@settings(max_examples=8, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    in_dim=st.integers(1, 9),
    out=st.lists(st.integers(1, 9), max_size=3),
    biased=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_drawn_shapes(leading, in_dim, out, biased, dtype):
    """Any number of axes in and out."""
    x, kernel = random((*leading, in_dim), 0, dtype), random((in_dim, *out), 1, dtype)
    bias = [random(tuple(out), 2, dtype)] if biased else []
    kind = "leaf" if dtype == "float32" else "bf16"
    assert_same(dense, reference, x, kernel, *bias, kind=kind)


def test_outputs_of_several_axes():
    """With a bias for each."""
    x, kernel, bias = random((2, 3, 8), 0), random((8, 4, 5), 1), random((4, 5), 2)
    assert dense(x, kernel, bias).shape == (2, 3, 4, 5)
    assert_same(dense, reference, x, kernel, bias)
