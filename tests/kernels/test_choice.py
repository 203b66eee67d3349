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
    assert {name for name, backend in names.items() if backend.split(" (")[0] == "xla"} == {
        "attention",
        "conv",
        "conv_transpose",
        "dense",
        "linear_cross_entropy",
        "lstm",
        "max_pool",
    }
    assert names["layer_norm"] == "reference"
    assert names["attention"] == "xla (the reference up to 128 queries)"
    assert names["linear_cross_entropy"] == "xla (the reference up to 2048 words)"


def test_what_the_notes_say():
    """Where a call is left to the reference, and where not, as the program shows."""
    ops = kernels.best("cpu")

    def has_its_own_gradient(function, *arguments):
        return "custom_vjp" in str(jax.make_jaxpr(function)(*arguments))

    few, enough = (jnp.zeros((1, n, 1, 4)) for n in (128, 129))
    assert not has_its_own_gradient(ops.attention, few, few, few)
    assert has_its_own_gradient(ops.attention, enough, enough, enough)
    x, targets = jnp.zeros((1, 2)), jnp.zeros(1, int)
    assert not has_its_own_gradient(ops.linear_cross_entropy, x, jnp.zeros((2, 2048)), targets)
    assert has_its_own_gradient(ops.linear_cross_entropy, x, jnp.zeros((2, 2049)), targets)
    few, many = (jnp.zeros((3, 3, channels, 2)) for channels in (4, 5))
    assert "conv_general" not in str(jax.make_jaxpr(ops.conv)(jnp.zeros((1, 5, 5, 4)), few))
    assert "conv_general" in str(jax.make_jaxpr(ops.conv)(jnp.zeros((1, 5, 5, 5)), many))


def test_every_kernel_is_chosen_or_has_a_reason_not_to_be():
    assert choice.KERNELS.keys() == choice.CHOICES["cpu"].keys() | choice.STAYS["cpu"].keys()
    assert not choice.CHOICES["cpu"].keys() & choice.STAYS["cpu"].keys()


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


def test_a_partial_application_is_named_by_what_it_calls():
    attention = functools.partial(functools.partial(kernels.best("cpu").attention), bias=None)
    named = kernels.describe(zoo.Ops(attention=attention))["attention"]
    assert named == "xla (the reference up to 128 queries)"


def test_summary():
    """A line for each back end; the reason where a kernel was measured, or none was."""
    said = kernels.summary(kernels.best("cpu"), "cpu").splitlines()
    assert len(said) == 2
    assert said[0].startswith("kernels: xla for dense, conv (the reference for ")
    assert "max_pool, attention (the reference up to 128 queries), lstm, " in said[0]
    assert said[1].startswith("kernels: reference for batch_norm, layer_norm (ours is faster alone")
    chosen = kernels.choose("cpu", layer_norm="xla", rms_norm="xla")
    assert "faster alone" not in kernels.summary(chosen, "cpu")
    elsewhere = kernels.summary(kernels.best("tpu"), "tpu").splitlines()
    assert elsewhere[0].startswith("kernels: reference for dense, conv, ")
    assert elsewhere[1:] == [f"kernels: {choice.UNMEASURED}"]


@pytest.mark.parametrize(
    ("operation", "backend"),
    [(name, backend) for name, (_, files) in choice.KERNELS.items() for backend in files],
)
def test_choose(operation, backend):
    """Every back end there is, for its platform; all else is as `best` has it."""
    platform = choice.NEEDS.get(backend, ("cpu", ""))[0]
    ops = kernels.choose(platform, **{operation: backend})
    function, best = getattr(ops, operation), kernels.best(platform)
    assert function.__module__ == f"kernels.{choice.KERNELS[operation][0]}.{backend}"
    assert dataclasses.replace(ops, **{operation: getattr(best, operation)}) == best


def test_choose_the_reference():
    assert kernels.choose("cpu", attention="reference").attention is reference.attention


def test_choose_never_falls_back():
    match = r"^lstm: pallas_gpu needs an NVIDIA GPU; this is cpu$"
    with pytest.raises(NotImplementedError, match=match):
        kernels.choose("cpu", lstm="pallas_gpu")
    with pytest.raises(NotImplementedError, match="pallas_tpu needs a TPU; this is gpu"):
        kernels.choose("cuda", attention="xla", rms_norm="pallas_tpu")
    with pytest.raises(ValueError, match=r"no operation 'atention'; did you mean 'attention'\?"):
        kernels.choose("cpu", atention="xla")
    with pytest.raises(ValueError, match=r"of lstm 'palas_gpu'; did you mean 'pallas_gpu'\?"):
        kernels.choose("gpu", lstm="palas_gpu")
    with pytest.raises(ValueError, match="no back end of batch_norm 'xla'; there are reference"):
        kernels.choose("cpu", batch_norm="xla")


def test_the_choice_is_logged_once(caplog):
    choice._best.cache_clear()
    with caplog.at_level(logging.INFO, logger="kernels"):
        kernels.best("cpu")
        kernels.best("cpu")
    assert sum("cpu: conv -> xla" in record.getMessage() for record in caplog.records) == 1
    reason = "ours is faster alone on most processors, but gained 1 %"
    assert f"cpu: layer_norm -> reference ({reason}" in caplog.text
    assert "cpu: batch_norm -> reference (there is no other)" in caplog.text


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
