"""The norm kernels against the reference: every backend, over the named shapes and drawn ones."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo.functional.norm as reference
from kernels.layer_norm import pallas_gpu, pallas_tpu, xla
from kernels.layer_norm.specs import SPECS
from tests.close import assert_close
from tests.kernels.gradients import assert_same, random
from tests.kernels.sharded import assert_differentiable_in_shards

PALLAS = {
    "pallas_gpu": (
        partial(pallas_gpu.layer_norm, interpret=True),
        partial(pallas_gpu.rms_norm, interpret=True),
    ),
    "pallas_tpu": (
        partial(pallas_tpu.layer_norm, interpret=True),
        partial(pallas_tpu.rms_norm, interpret=True),
    ),
}
BACKENDS = {"xla": (xla.layer_norm, xla.rms_norm), **PALLAS}


BOTH = ("layer_norm", "rms_norm")


def assert_as_reference(
    backend, shape, dtype="float32", parameters="float32", operations=BOTH, **options
):
    """With all parameters; x has a mean that is not small."""
    x = random(shape, 0, dtype) + 3
    scale, bias = random(shape[-1:], 1, parameters), random(shape[-1:], 2, parameters)
    kind = "leaf" if (dtype, parameters) == ("float32", "float32") else "bf16"
    for operation in operations:
        kernel = partial(BACKENDS[backend][BOTH.index(operation)], **options)
        arguments = (x, scale, bias) if operation == "layer_norm" else (x, scale)
        same = partial(getattr(reference, operation), **options)
        assert_same(kernel, same, *arguments, kind=kind, forward_mode=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(backend, name):
    """Each real shape with fewer rows, that do not fill the last block: the code path stays."""
    spec = dataclasses.replace(SPECS[name], batch=1, steps=19)
    assert_as_reference(backend, (spec.batch, spec.steps, spec.dim))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=6, deadline=None)
@given(
    operation=st.sampled_from(BOTH),
    leading=st.lists(st.integers(1, 5), max_size=3),
    dim=st.integers(4, 300),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    parameters=st.sampled_from(["float32", "bfloat16"]),
    epsilon=st.sampled_from([1e-6, 1e-5, 0.1]),
)
def test_drawn_shapes(backend, operation, leading, dim, dtype, parameters, epsilon):
    assert_as_reference(backend, (*leading, dim), dtype, parameters, [operation], epsilon=epsilon)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(7,), (1, 128), (3, 1), (5, 2), (33, 5)])
def test_edges(backend, shape):
    """One row, one feature or two, and a block that is not full.

    Of so few features μ and σ leave nothing but what ε lets through. Where ε is small, that is a
    difference of nearly equal numbers, of which the reference has no correct digit either.
    """
    assert_as_reference(backend, shape, epsilon=1.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dim", [128, 40])
def test_several_blocks(backend, dim, monkeypatch):
    """Many blocks, and on a GPU more than there are programs for."""
    monkeypatch.setattr(pallas_gpu, "MAX_PROGRAMS", 3)
    monkeypatch.setattr(pallas_gpu, "BLOCK_SIZE", 4 * 128)
    monkeypatch.setattr(pallas_tpu, "BLOCK_SIZE", 16 * 128)
    assert_as_reference(backend, (2, 35, dim))


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_left_out(backend):
    """Neither or one of them; and no epsilon, which the rows beyond the array must survive."""
    layer_norm, rms_norm = BACKENDS[backend]
    x, scale, bias = random((5, 12), 0), random((12,), 1), random((12,), 2)
    compare = partial(assert_same, forward_mode=False)
    compare(layer_norm, reference.layer_norm, x)
    compare(layer_norm, reference.layer_norm, x, scale)
    compare(lambda x, b: layer_norm(x, None, b), lambda x, b: reference.layer_norm(x, None, b),
            x, bias)  # fmt: skip
    compare(rms_norm, reference.rms_norm, x)
    options = {"epsilon": 0.0}
    compare(partial(rms_norm, **options), partial(reference.rms_norm, **options), x, scale)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows(backend):
    assert BACKENDS[backend][0](jnp.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_under_vmap(backend):
    rms_norm = BACKENDS[backend][1]
    x, scale = random((3, 5, 20), 0), random((20,), 1)

    def gradient(function):
        total = jax.grad(lambda x, scale: jnp.sum(jnp.sin(function(x, scale))), (0, 1))
        return jax.vmap(total, in_axes=(0, None))(x, scale)

    assert_close(gradient(rms_norm), gradient(reference.rms_norm))


@pytest.mark.parametrize("backend", [pallas_gpu, pallas_tpu])
@pytest.mark.parametrize("operation", ["layer_norm", "rms_norm"])
def test_what_cannot_be_served(backend, operation):
    function = getattr(backend, operation)
    with pytest.raises(NotImplementedError, match=r"x is float16, .* cast x"):
        function(jnp.zeros((2, 4), "float16"), interpret=True)
    with pytest.raises(NotImplementedError, match=r"a row has 16385 features, .* at most 16384"):
        function(jnp.zeros((1, 16385)), interpret=True)


def test_what_triton_cannot_count():
    huge = jax.ShapeDtypeStruct((2**18, 2**13), "bfloat16")
    with pytest.raises(NotImplementedError, match=r"x has 2147483648 elements, .* cut the batch"):
        jax.eval_shape(pallas_gpu.rms_norm, huge)


def test_what_the_cpu_keeps():
    """Between the passes x itself and two numbers a row, one in rms_norm."""
    x, scale = jnp.zeros((6, 40)), jnp.ones(40)

    def kept(function, *arguments):
        pullback = jax.eval_shape(lambda *args: jax.vjp(function, *args)[1], *arguments)
        return sorted(leaf.shape for leaf in jax.tree.leaves(pullback))

    assert kept(xla.layer_norm, x, scale, scale) == [(6, 1), (6, 1), (6, 40), (40,), (40,)]
    assert kept(xla.rms_norm, x, scale) == [(6, 1), (6, 40), (40,)]


def penalty(layer_norm):
    """The gradient of a gradient's square."""
    scale, weights = random((6,), 1), random((3, 6), 2)
    inner = jax.grad(lambda x: jnp.sum(weights * layer_norm(x, scale)))
    return jax.jit(jax.grad(lambda x: jnp.sum(inner(x) ** 2)))(random((3, 6), 0))


def test_second_derivatives():
    assert_close(penalty(xla.layer_norm), penalty(reference.layer_norm))


@pytest.mark.parametrize("backend", PALLAS)
def test_no_second_derivatives_in_pallas(backend):
    with pytest.raises(NotImplementedError, match=r"has no derivative; use .* zoo\.functional"):
        penalty(PALLAS[backend][0])


@pytest.mark.parametrize("backend", [xla, pallas_gpu, pallas_tpu])
def test_inside_shard_map(backend):
    x, scale, bias = random((4, 6), 0), random((6,), 1), random((6,), 2)
    for parameters in (scale, bias), (scale,), ():
        assert_differentiable_in_shards(backend.layer_norm, (x,), parameters, runs=backend is xla)
    assert_differentiable_in_shards(backend.rms_norm, (x,), (scale,), runs=backend is xla)
