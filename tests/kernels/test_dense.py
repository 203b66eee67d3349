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
    out_dim=st.integers(1, 9),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_drawn_shapes(leading, in_dim, out_dim, dtype):
    x, kernel = random((*leading, in_dim), 0, dtype), random((in_dim, out_dim), 1, dtype)
    assert_same(dense, reference, x, kernel, kind="leaf" if dtype == "float32" else "bf16")
