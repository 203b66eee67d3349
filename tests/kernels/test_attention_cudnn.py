"""cuDNN's attention: what it is asked, by the same call to XLA, and what it is not.

That cuDNN takes the call is seen where it is compiled for a GPU: `tests/aot`.
"""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import gpu
from kernels.attention.cudnn import attention
from tests.close import assert_close
from tests.kernels.gradients import random
from zoo.functional.attention import Mask
from zoo.functional.attention import attention as reference

by_xla = partial(attention, implementation="xla")


def arguments(batch=2, tokens=9, num_keys=None, heads=4, kv_heads=2, width=16, dtype="bfloat16"):
    keys = (batch, num_keys or tokens, kv_heads, width)
    shapes = [(batch, tokens, heads, width), keys, keys]
    return [random(shape, i, dtype) for i, shape in enumerate(shapes)]


@settings(max_examples=6, deadline=None)
@given(
    tokens=st.sampled_from([1, 9]),
    num_keys=st.sampled_from([5, 9, 12]),
    heads=st.sampled_from([(2, 2), (3, 1)]),
    causal=st.booleans(),
    lengths=st.none() | st.tuples(st.integers(0, 25), st.integers(0, 25)),
    dtype=st.sampled_from(["bfloat16", "float16"]),
)
def test_the_rules_arrive(tokens, num_keys, heads, causal, lengths, dtype):
    """Values and gradients; a row without keys has 0 of both."""
    q, k, v = arguments(2, tokens, num_keys, heads[0], heads[1], dtype=dtype)
    mask = Mask(causal=causal, lengths=None if lengths is None else jnp.array(lengths))
    weighting = random(q.shape, 7)

    def found(function, *q_k_v):  # step by step: XLA compiles no whole program in float16 here
        y, pull_back = jax.vjp(lambda *q_k_v: function(*q_k_v, mask), *q_k_v)
        return y, *pull_back(weighting.astype(y.dtype))

    ours, theirs = found(by_xla, q, k, v), found(reference, q, k, v)
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
    with pytest.raises(NotImplementedError, match="cuDNN is not installed; it comes with"):
        jax.jit(attention).lower(*arguments())


@pytest.fixture
def warnings_of_gpu(caplog):
    """What `gpu.attention` logs, as if it had logged nothing before."""
    gpu._say.cache_clear()
    with caplog.at_level(logging.WARNING, logger="kernels"):
        yield caplog
    gpu._say.cache_clear()


def test_what_runs_instead_is_said_once(warnings_of_gpu):
    q, k, v = arguments(dtype="float32")
    for _ in range(2):
        assert jnp.array_equal(gpu.attention(q, k, v), reference(q, k, v))
    (message,) = warnings_of_gpu.messages
    assert message.startswith("gpu: attention -> reference, with T·S numbers, as float32 is nei")


def test_an_installation_that_is_broken(monkeypatch, warnings_of_gpu):
    """Is no refusal, so nothing takes its place."""

    def fail(*_, **__):
        raise RuntimeError("cuDNN: CUDNN_STATUS_NOT_INITIALIZED")

    monkeypatch.setattr(jax.nn, "dot_product_attention", fail)
    with pytest.raises(RuntimeError, match="NOT_INITIALIZED"):
        gpu.attention(*arguments())
    assert not warnings_of_gpu.messages
