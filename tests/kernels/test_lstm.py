"""The LSTM kernel against the reference, over the named shapes and drawn ones."""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.lstm import lstm
from kernels.lstm.specs import SPECS, LSTMSpec
from tests.close import assert_close
from tests.kernels.gradients import assert_same, random
from zoo.functional.recurrent import length_mask
from zoo.functional.recurrent import lstm as reference


def arguments(spec, dtype="float32"):
    """x, h0, c0, w_x, w_h, b; the state is float32 whatever the dtype of the others."""
    state = (spec.batch, spec.dim)
    x = random((spec.batch, spec.steps, spec.in_dim), 0, dtype)
    w_x = random((spec.in_dim, 4 * spec.dim), 3, dtype) * spec.in_dim**-0.5
    w_h = random((spec.dim, 4 * spec.dim), 4, dtype) * spec.dim**-0.5
    return x, random(state, 1), random(state, 2), w_x, w_h, random((4 * spec.dim,), 5, dtype)


def assert_as_reference(spec, kind: Literal["leaf", "bf16"] = "leaf", **options):
    """Outputs, last h and last c side by side; there is no forward-mode derivative."""

    def flat(function):
        def run(*args):
            outputs, (h, c) = function(*args, **options)
            last = jnp.stack([h, c], axis=1).astype(outputs.dtype)
            return jnp.concatenate([outputs, last], axis=1)

        return run

    dtype = "float32" if kind == "leaf" else "bfloat16"
    everything = arguments(spec, dtype)
    assert_same(flat(lstm), flat(reference), *everything, kind=kind, forward_mode=False)


@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(name):
    """Each real shape, with fewer sequences and steps: the code path stays the same."""
    spec = dataclasses.replace(SPECS[name], batch=2, steps=min(SPECS[name].steps, 12))
    assert_as_reference(spec)


@settings(max_examples=6, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    in_dim=st.integers(1, 4),
    dim=st.integers(1, 4),
    reverse=st.booleans(),
    padding=st.none() | st.integers(0, 31),
    kind=st.sampled_from(["leaf", "bf16"]),
)
def test_drawn_shapes(batch, steps, in_dim, dim, reverse, padding, kind):
    """Any mask, with holes in the middle too: bits of a number say which steps are real."""
    mask = None
    if padding is not None:
        row = jnp.array([bool(padding >> t & 1) for t in range(steps)])
        mask = jnp.stack([jnp.roll(row, shift) for shift in range(batch)])
    spec = LSTMSpec(batch=batch, steps=steps, in_dim=in_dim, dim=dim)
    assert_as_reference(spec, kind=kind, mask=mask, reverse=reverse)


def test_no_gradient_reaches_the_padding():
    spec = LSTMSpec(batch=3, steps=5, in_dim=2, dim=3)
    x, *others = arguments(spec)
    mask = length_mask(jnp.array([5, 2, 0]), 5)
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(lstm(x, *others, mask=mask)[0])))(x)
    assert jnp.array_equal(jnp.any(gradient != 0, axis=-1), mask)


def test_second_derivatives():
    spec = LSTMSpec(batch=2, steps=3, in_dim=2, dim=2)
    x, *others = arguments(spec)

    def penalty(function):
        inner = jax.grad(lambda x, *others: jnp.sum(jnp.sin(function(x, *others)[0])))
        return jax.jit(jax.grad(lambda *args: jnp.sum(inner(*args) ** 2), (0, 4)))(x, *others)

    assert_close(penalty(lstm), penalty(reference))


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

    assert set(products_in_loops(lstm)) == {(2, 20), (2, 5)}
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


def test_under_vmap():
    spec = LSTMSpec(batch=2, steps=3, in_dim=2, dim=3)
    x, *others = arguments(spec)
    many = jnp.stack([x, 2 * x])
    actual = jax.vmap(lambda x: partial(lstm, x)(*others)[0])(many)
    assert_close(actual, jnp.stack([lstm(x, *others)[0] for x in many]))
