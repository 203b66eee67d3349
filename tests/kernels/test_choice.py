"""Which kernels are chosen, and what is said about it."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import kernels
import zoo
from kernels import choice
from kernels.attention import cudnn
from kernels.conv.xla import twice_differentiated_conv
from tests.close import assert_close
from tests.kernels.gradients import random
from zoo.functional import attention as reference


def test_best_on_a_cpu():
    names = kernels.describe(kernels.best("cpu"))
    assert {name for name, backend in names.items() if backend == "xla"} == {
        "attention",
        "conv",
        "conv_transpose",
        "dense",
        "linear_cross_entropy",
        "lstm",
        "max_pool",
    }
    assert names["layer_norm"] == "reference"


def test_elsewhere_the_reference():
    assert kernels.best("tpu") == zoo.Ops()


@pytest.mark.parametrize("platform", ["gpu", "cuda", "rocm"])
def test_on_a_gpu_cudnn_where_it_serves(platform, monkeypatch):
    ops = kernels.best(platform)
    assert dataclasses.replace(ops, attention=zoo.Ops().attention) == zoo.Ops()
    q, k, v = (random((2, 6, 2, 8), i) for i in range(3))
    assert jnp.array_equal(ops.attention(q, k, v), reference.attention(q, k, v))  # no float32
    half = [array.astype(jnp.bfloat16) for array in (q, k, v)]
    assert jnp.array_equal(ops.attention(*half), reference.attention(*half))  # not on this machine
    by_xla = functools.partial(cudnn.attention, implementation="xla")
    monkeypatch.setattr(cudnn, "attention", lambda *arguments: by_xla(*arguments) + 1)
    assert_close(ops.attention(*half), reference.attention(*half) + 1, kind="bf16")
    assert kernels.for_second_derivatives(ops) == zoo.Ops()


def test_compiler_options():
    """XLA takes them, and the program computes the same."""
    options = kernels.compiler_options("cpu")
    assert options == choice.COMPILER_OPTIONS["cpu"]
    x, kernel = random((2, 6, 6, 20), 0), random((3, 3, 20, 20), 1)
    gradient = jax.grad(lambda k: jnp.sum(kernels.best("cpu").conv(x, k) ** 2))
    compiled = jax.jit(gradient).lower(kernel).compile(compiler_options=options)
    assert_close(compiled(kernel), gradient(kernel))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options are tried where they are used")
def test_options_that_xla_refuses(monkeypatch, caplog):
    choice._accepted.cache_clear()
    monkeypatch.setitem(choice.COMPILER_OPTIONS, "cpu", {"xla_of_another_year": "1"})
    with caplog.at_level(logging.WARNING, logger="kernels"):
        assert kernels.compiler_options("cpu") == {}
    choice._accepted.cache_clear()
    assert "XLA refuses {'xla_of_another_year': '1'}" in caplog.text


def test_no_options_elsewhere():
    assert kernels.compiler_options("tpu") == {}


def test_unknown_platform():
    with pytest.raises(ValueError, match="platform='abacus' is none of cpu, gpu, tpu"):
        kernels.best("abacus")


def test_a_foreign_function_is_named_by_its_module():
    assert kernels.describe(zoo.Ops(dense=random))["dense"] == "tests.kernels.gradients"


def test_the_choice_is_logged_once(caplog):
    choice._best.cache_clear()
    with caplog.at_level(logging.INFO, logger="kernels"):
        kernels.best("cpu")
        kernels.best("cpu")
    assert sum("cpu: conv -> xla" in record.getMessage() for record in caplog.records) == 1


def test_a_whole_model_gives_the_same():
    images = random((2, 28, 28, 1), 0)
    stock = zoo.create("convnet-32-64", rngs=nnx.Rngs(0))
    fast = zoo.create("convnet-32-64", rngs=nnx.Rngs(0), ops=kernels.best("cpu"))
    assert_close(nnx.jit(fast)(images), nnx.jit(stock)(images), kind="composite")


def test_ops_for_second_derivatives():
    """Kernels that have a better one are replaced, and nothing else, nor what the user chose."""
    ops = kernels.best("cpu")
    changed = kernels.for_second_derivatives(ops)
    assert changed.conv is twice_differentiated_conv
    assert changed.attention is reference.attention
    assert dataclasses.replace(changed, conv=ops.conv, attention=ops.attention) == ops
    assert kernels.for_second_derivatives(zoo.Ops()) == zoo.Ops()
