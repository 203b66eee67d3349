"""cuDNN's attention: what it is asked, by the same call to XLA, and what it is not.

That cuDNN takes the call is seen where it is compiled for a GPU: `tests/aot`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention.cudnn import attention
from tests.close import assert_close
from tests.kernels.gradients import random
from zoo.functional.attention import Mask
from zoo.functional.attention import attention as reference

by_xla = partial(attention, implementation="xla")


def arguments(batch=2, tokens=9, heads=4, kv_heads=2, width=16, dtype="bfloat16"):
    shapes = [(batch, tokens, n, width) for n in (heads, kv_heads, kv_heads)]
    return [random(shape, i, dtype) for i, shape in enumerate(shapes)]


@settings(max_examples=10, deadline=None)
@given(
    tokens=st.integers(1, 20),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]),
    causal=st.booleans(),
    lengths=st.none() | st.tuples(st.integers(0, 25), st.integers(0, 25)),
    dtype=st.sampled_from(["bfloat16", "float16"]),
)
def test_the_rules_arrive(tokens, heads, causal, lengths, dtype):
    """Values and gradients; a row without keys has 0 of both."""
    q, k, v = arguments(tokens=tokens, heads=heads[0], kv_heads=heads[1], dtype=dtype)
    mask = Mask(causal=causal, lengths=None if lengths is None else jnp.array(lengths))
    weighting = random(q.shape, 7)

    def loss(function, *q_k_v):
        return jnp.vdot(function(*q_k_v, mask).astype(jnp.float32), weighting)

    assert_close(by_xla(q, k, v, mask), reference(q, k, v, mask), kind="bf16")
    ours, theirs = (
        jax.grad(partial(loss, function), argnums=(0, 1, 2))(q, k, v)
        for function in (by_xla, reference)
    )
    for ours_one, theirs_one in zip(ours, theirs, strict=True):
        assert_close(ours_one, theirs_one, kind="bf16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float32"}, "float32 is neither bfloat16 nor float16"),
        ({"width": 20}, "heads are 20 wide, and not a multiple of 8 of at most 128"),
        ({"width": 136}, "heads are 136 wide"),
    ],
)
def test_what_it_does_not_count_in(changes, message):
    with pytest.raises(NotImplementedError, match=message):
        by_xla(*arguments(**changes))


def test_what_it_does_not_hide():
    q, k, v = arguments()
    numbers = jnp.zeros((2, 9), jnp.int32)
    with pytest.raises(NotImplementedError, match="knows no segments"):
        by_xla(q, k, v, Mask(segments=(numbers, numbers)))
    with pytest.raises(NotImplementedError, match="a bias"):
        by_xla(q, k, v, None, jnp.zeros((1, 1, 9, 9)))
    with pytest.raises(NotImplementedError, match="a mask of shape"):
        by_xla(q, k, v, Mask(causal=True).array(9, 9))
    with pytest.raises(ValueError, match="3 key/value heads do not divide 4"):
        by_xla(*arguments(kv_heads=3))


def test_it_needs_cudnn():
    assert jax.default_backend() == "cpu"
    with pytest.raises(RuntimeError, match="cuDNN"):
        jax.jit(attention).lower(*arguments())
