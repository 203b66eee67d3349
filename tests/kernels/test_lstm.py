"""The LSTM kernel against the reference, over the named shapes and drawn ones."""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.lstm import pallas_gpu, pallas_tpu, xla
from kernels.lstm.specs import SPECS, LSTMSpec
from tests.close import assert_close
from tests.kernels.gradients import assert_same, random
from tests.kernels.sharded import assert_differentiable_in_shards
from zoo.functional.recurrent import length_mask
from zoo.functional.recurrent import lstm as reference

PALLAS = {
    "pallas_gpu": partial(pallas_gpu.lstm, interpret=True),
    "pallas_tpu": partial(pallas_tpu.lstm, interpret=True),
}
BACKENDS = {"xla": xla.lstm, **PALLAS}


def arguments(spec, dtype="float32"):
    """x, h0, c0, w_x, w_h, b; the state is float32 whatever the dtype of the others."""
    state = (spec.batch, spec.dim)
    x = random((spec.batch, spec.steps, spec.in_dim), 0, dtype)
    w_x = random((spec.in_dim, 4 * spec.dim), 3, dtype) * spec.in_dim**-0.5
    w_h = random((spec.dim, 4 * spec.dim), 4, dtype) * spec.dim**-0.5
    return x, random(state, 1), random(state, 2), w_x, w_h, random((4 * spec.dim,), 5, dtype)


def assert_as_reference(backend, spec, kind: Literal["leaf", "bf16"] = "leaf", **options):
    """Outputs, last h and last c side by side; there is no forward-mode derivative."""

    def flat(function):
        def run(*args):
            outputs, (h, c) = function(*args, **options)
            last = jnp.stack([h, c], axis=1).astype(outputs.dtype)
            return jnp.concatenate([outputs, last], axis=1)

        return run

    everything = arguments(spec, "float32" if kind == "leaf" else "bfloat16")
    kernel = flat(BACKENDS[backend])
    assert_same(kernel, flat(reference), *everything, kind=kind, forward_mode=False)


def any_mask(batch: int, steps: int, bits: int):
    """With holes in the middle too: bits of a number say which steps are real."""
    row = jnp.array([bool(bits >> t & 1) for t in range(steps)])
    return jnp.stack([jnp.roll(row, shift) for shift in range(batch)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(backend, name):
    """Each real shape, with fewer sequences and steps: the code path stays the same.

    The largest in bfloat16, which TPUs need for it; a row of padding alone has no step.
    """
    large = SPECS[name].dim > 256
    spec = dataclasses.replace(SPECS[name], batch=2, steps=3 if large else 12)
    mask = length_mask(jnp.array([2, 0]), spec.steps) if spec.padded else None
    kind = "bf16" if large else "leaf"
    assert_as_reference(backend, spec, kind, mask=mask, reverse=spec.reverse)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=4, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    in_dim=st.integers(1, 4),
    dim=st.integers(1, 40),
    reverse=st.booleans(),
    padding=st.none() | st.integers(0, 31),
    kind=st.sampled_from(["leaf", "bf16"]),
)
def test_drawn_shapes(backend, batch, steps, in_dim, dim, reverse, padding, kind):
    """Any mask."""
    mask = None if padding is None else any_mask(batch, steps, padding)
    spec = LSTMSpec(batch=batch, steps=steps, in_dim=in_dim, dim=dim)
    assert_as_reference(backend, spec, kind, mask=mask, reverse=reverse)


@pytest.mark.parametrize("backend", PALLAS)
@pytest.mark.parametrize(
    ("steps", "kind", "reverse", "masked"),
    [(8, "leaf", False, True), (10, "bf16", True, True), (7, "leaf", True, False)],
)
def test_several_blocks(backend, steps, kind, reverse, masked, monkeypatch):
    """Of the batch, of the steps and of h; none fills the last of them."""
    size = 4 if kind == "leaf" else 2
    chunk_of_three = 3 * 16 * 256 * (9 * size + 4)
    monkeypatch.setattr(pallas_tpu, "BLOCK_BYTES", chunk_of_three)
    monkeypatch.setattr(pallas_tpu, "MAX_ROWS", 16)
    monkeypatch.setattr(pallas_tpu, "TILE", 128)
    spec = LSTMSpec(batch=21, steps=steps, in_dim=3, dim=150)
    mask = any_mask(spec.batch, steps, 0b10011101101) if masked else None
    assert_as_reference(backend, spec, kind, mask=mask, reverse=reverse)


@pytest.mark.parametrize("backend", PALLAS)
@pytest.mark.parametrize("dim", [5, 150])
def test_without_a_gradient(backend, dim):
    """For which a kernel keeps nothing, and state that no step changes is as it was."""
    everything = arguments(LSTMSpec(batch=3, steps=4, in_dim=2, dim=dim))
    mask = length_mask(jnp.array([0, 3, 4]), 4)
    outputs, last = jax.jit(partial(BACKENDS[backend], mask=mask))(*everything)
    assert_close((outputs, last), jax.jit(partial(reference, mask=mask))(*everything))
    assert jnp.array_equal(jnp.stack(last)[:, 0], jnp.stack(everything[1:3])[:, 0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("batch", "steps"), [(2, 0), (0, 2)])
def test_nothing_to_do(backend, batch, steps):
    spec = LSTMSpec(batch=batch, steps=steps, in_dim=3, dim=5)
    everything = arguments(spec)
    outputs, (h, c) = BACKENDS[backend](*everything)
    assert outputs.shape == (batch, steps, 5)
    assert jnp.array_equal(h, everything[1])
    assert jnp.array_equal(c, everything[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_reaches_the_padding(backend):
    spec = LSTMSpec(batch=3, steps=5, in_dim=2, dim=3)
    x, *others = arguments(spec)
    mask = length_mask(jnp.array([5, 2, 0]), 5)

    def total(x):
        return jnp.sum(jnp.sin(BACKENDS[backend](x, *others, mask=mask)[0]))

    gradient = jax.jit(jax.grad(total))(x)
    assert jnp.array_equal(jnp.any(gradient != 0, axis=-1), mask)


def test_second_derivatives():
    spec = LSTMSpec(batch=2, steps=3, in_dim=2, dim=2)
    x, *others = arguments(spec)

    def penalty(function):
        inner = jax.grad(lambda x, *others: jnp.sum(jnp.sin(function(x, *others)[0])))
        return jax.jit(jax.grad(lambda *args: jnp.sum(inner(*args) ** 2), (0, 4)))(x, *others)

    assert_close(penalty(xla.lstm), penalty(reference))


@pytest.mark.parametrize("backend", PALLAS)
def test_no_second_derivatives_in_pallas(backend):
    x, *others = arguments(LSTMSpec(batch=2, steps=3, in_dim=2, dim=2))
    inner = jax.grad(lambda x: jnp.sum(jnp.sin(PALLAS[backend](x, *others)[0])))
    with pytest.raises(NotImplementedError, match=r"has no derivative; use zoo\.functional"):
        jax.grad(lambda x: jnp.sum(inner(x) ** 2))(x)


@pytest.mark.parametrize("backend", PALLAS)
def test_what_pallas_keeps(backend):
    """Beside arguments: the sums of the gates, in their own type, h, and c in float32."""
    spec = LSTMSpec(batch=16, steps=6, in_dim=3, dim=128)
    everything = arguments(spec, "bfloat16")

    def pullback(*args):
        return jax.vjp(PALLAS[backend], *args)[1]

    kept = [leaf for leaf in jax.tree.leaves(jax.eval_shape(pullback, *everything))]
    large = sorted((str(k.dtype), k.shape) for k in kept if k.shape[:2] == (6, 16))
    sums, h, c = (6, 16, 512), (6, 16, 128), (6, 16, 128)
    x = 6, 16, 3
    assert large == [("bfloat16", x), ("bfloat16", h), ("bfloat16", sums), ("float32", c)]


def test_the_gradient_of_the_recurrent_weights_is_one_product():
    """No product of the compiled backward loop has the shape of W_h."""
    spec = LSTMSpec(batch=2, steps=7, in_dim=3, dim=5)

    def products_in_loops(function):
        gradient = jax.grad(lambda *args: jnp.sum(function(*args)[0]), argnums=4)
        jaxpr = jax.make_jaxpr(gradient)(*arguments(spec)).jaxpr
        return [
            eqn.outvars[0].aval.shape
            for loop in scans(jaxpr)
            for eqn in loop.params["jaxpr"].jaxpr.eqns
            if eqn.primitive.name == "dot_general"
        ]

    assert set(products_in_loops(xla.lstm)) == {(2, 20), (2, 5)}
    assert {(20, 5), (5, 20)} & set(products_in_loops(reference))


def scans(jaxpr):
    """Every scan in a traced function, however deep."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            yield eqn
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from scans(inner)


@pytest.mark.parametrize(
    "dtypes",
    [
        ("float32", "float32", "bfloat16", "bfloat16"),
        ("float32", "bfloat16", "bfloat16", "float32"),
        ("bfloat16", "float32", "float32", "bfloat16"),
        ("float32", "float32", "float32", "bfloat16"),
    ],
)
def test_mixed_types(dtypes):
    """Of x, the weights, h and c; each gradient has that of its argument."""
    of_x, of_weights, of_h, of_c = dtypes
    x, h0, c0, *weights = arguments(LSTMSpec(batch=2, steps=3, in_dim=2, dim=3))
    given = x.astype(of_x), h0.astype(of_h), c0.astype(of_c)
    given = *given, *(array.astype(of_weights) for array in weights)

    def gradients(function, *given):
        results, pullback = jax.vjp(partial(function, mask=any_mask(2, 3, 0b101)), *given)
        return results, pullback(jax.tree.map(jnp.ones_like, results))

    actual = jax.jit(partial(gradients, xla.lstm))(*given)
    types = jax.eval_shape(partial(gradients, reference), *given)
    assert [a.dtype for a in jax.tree.leaves(actual)] == [a.dtype for a in jax.tree.leaves(types)]
    # Of numbers that were rounded once: in bfloat16 the reference rounds as often as the kernel.
    exact = jax.tree.map(lambda array: array.astype("float32"), given)
    assert_close(actual, gradients(reference, *exact), kind="bf16")


@pytest.mark.parametrize("backend", [xla, pallas_gpu, pallas_tpu])
@pytest.mark.parametrize("masked", [False, True])
def test_inside_shard_map(backend, masked):
    x, h0, c0, *weights = arguments(LSTMSpec(batch=4, steps=3, in_dim=2, dim=3))
    mask = any_mask(4, 3, 0b101)

    def lstm(x, h0, c0, mask, *weights):
        return backend.lstm(x, h0, c0, *weights, mask=mask if masked else None)

    rows, runs = (x, h0, c0, mask), backend is xla
    assert_differentiable_in_shards(lstm, rows, tuple(weights), runs=runs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_under_vmap(backend):
    spec = LSTMSpec(batch=2, steps=3, in_dim=2, dim=3)
    x, *others = arguments(spec)
    many = jnp.stack([x, 2 * x])

    def gradient(function):
        total = jax.grad(lambda x, *args: jnp.sum(jnp.sin(function(x, *args)[0])), (0, 4))
        return jax.jit(jax.vmap(lambda x: total(x, *others)))(many)

    assert_close(gradient(BACKENDS[backend]), gradient(reference))


@pytest.mark.parametrize("backend", PALLAS)
def test_what_cannot_be_served(backend):
    spec = LSTMSpec(batch=2, steps=3, in_dim=2, dim=4)
    everything = arguments(spec, "float16")
    with pytest.raises(NotImplementedError, match=r"weights are float16, .* cast them"):
        PALLAS[backend](*everything)
    x, h0, c0, w_x, w_h, b = arguments(spec)
    with pytest.raises(NotImplementedError, match=r"are bfloat16, float32, .* cast them"):
        PALLAS[backend](x.astype("bfloat16"), h0, c0, w_x, w_h, b)
    with pytest.raises(NotImplementedError, match=r"h0 is float32 and c0 bfloat16, .* cast them"):
        PALLAS[backend](x, h0, c0.astype("bfloat16"), w_x, w_h, b)


def shapes(spec, dtype="float32"):
    return jax.eval_shape(lambda: arguments(spec, dtype))


def test_weights_that_do_not_fit_into_a_tpu():
    large = r"H = 1024 makes W_h 16777216 bytes in float32, and 8388608 fit .* use bfloat16"
    with pytest.raises(NotImplementedError, match=large):
        jax.eval_shape(pallas_tpu.lstm, *shapes(SPECS["gnmt"]))
    jax.eval_shape(pallas_tpu.lstm, *shapes(SPECS["gnmt"], "bfloat16"))


def test_what_triton_cannot_count():
    huge = LSTMSpec(batch=512, steps=1024, in_dim=1, dim=1000)
    shape = r"the gates of all steps are 2147483648 numbers, .* cut the batch"
    with pytest.raises(NotImplementedError, match=shape):
        jax.eval_shape(pallas_gpu.lstm, *shapes(huge))
