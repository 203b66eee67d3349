"""Recurrent layers: their start, their passes, their dropout, and their complaints."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized
from zoo.functional.ops import Ops
from zoo.functional.recurrent import length_mask
from zoo.layers import GRU, LSTM, RNN

KINDS = pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
X = random(3, 6, 2)
MASK = length_mask(jnp.array([6, 2, 4]), 6)


def build(kind, **settings):
    return randomized(lambda: kind(2, 4, rngs=nnx.Rngs(0), **settings))


def call(layer, x, state=None, **options):
    state = layer.initial_state(x.shape[0]) if state is None else state
    return nnx.jit(lambda layer, x, state: layer(x, state, **options))(layer, x, state)


@KINDS
def test_every_parameter_starts_uniform_within_one_over_root_width(kind, rngs):
    layer = kind(3, 64, rngs=rngs)
    for parameter in jax.tree.leaves(nnx.state(layer, nnx.Param)):
        assert 0.9 < jnp.max(jnp.abs(parameter)) * math.sqrt(64) <= 1
        assert jnp.abs(jnp.mean(parameter)) * math.sqrt(64) < 4 / math.sqrt(3 * parameter.size)


def test_forget_bias_is_added_to_the_forget_gate_alone():
    plain, opened = (LSTM(2, 4, rngs=nnx.Rngs(0), forget_bias=bias) for bias in (0.0, 1.0))
    difference = opened.passes[0].b[...] - plain.passes[0].b[...]
    assert_close(difference, jnp.array([0.0] * 4 + [1.0] * 4 + [0.0] * 8))


@KINDS
def test_both_directions_are_two_passes_side_by_side(kind):
    layer = build(kind, bidirectional=True)
    outputs, state = call(layer, X, mask=MASK)
    for row, reverse in enumerate((False, True)):
        one = build(kind)
        nnx.update(one.passes[0], nnx.state(layer.passes[row]))
        flipped = X[:, ::-1] if reverse else X
        expected, last = call(one, flipped, mask=MASK[:, ::-1] if reverse else MASK)
        expected = expected[:, ::-1] if reverse else expected
        assert_close(outputs[..., 4 * row : 4 * (row + 1)], expected)
        assert_close(
            [a[row] for a in jax.tree.leaves(state)], [a[0] for a in jax.tree.leaves(last)]
        )


@KINDS
def test_the_state_carries_a_sequence_over_a_cut(kind):
    layer = build(kind, num_layers=2)
    whole, last = call(layer, X)
    first, between = call(layer, X[:, :2])
    second, end = call(layer, X[:, 2:], between)
    assert_close(jnp.concatenate([first, second], axis=1), whole)
    assert_close(jax.tree.leaves(end), jax.tree.leaves(last))


@KINDS
def test_padding_never_changes_an_answer(kind):
    layer = build(kind, num_layers=2, bidirectional=True)
    outputs, state = call(layer, X, mask=MASK)
    others, same = call(layer, jnp.where(MASK[..., None], X, 1e3), mask=MASK)
    assert jnp.array_equal(outputs, others)
    assert jnp.all(jnp.where(MASK[..., None], 0, outputs) == 0)
    assert_close(jax.tree.leaves(state), jax.tree.leaves(same))


@KINDS
def test_graph_mode_and_tree_mode_agree(kind):
    results = []
    for graph in (True, False):
        with nnx.set_graph_mode(graph):
            layer = build(kind, num_layers=2, bidirectional=True)
            results.append(jax.tree.leaves(call(layer, X, mask=MASK)))
    assert_close(results[0], results[1])


@KINDS
def test_the_input_decides_the_dtype_of_the_arithmetic(kind):
    layer = build(kind, num_layers=2)
    low, state = call(layer, X.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    assert_close(low, call(layer, X)[0], kind="bf16")


def test_dropout_is_between_layers_and_asks_for_its_key():
    rate = {"dropout_rate": 0.5}
    layer, plain = build(LSTM, num_layers=2, **rate), build(LSTM, num_layers=2)
    state = layer.initial_state(3)
    dropped, _ = layer(X, state, rngs=nnx.Rngs(dropout=0))
    expected, _ = plain(X, state)
    assert not jnp.allclose(dropped, expected)
    assert_close(nnx.view(layer, deterministic=True)(X, state)[0], expected)
    with pytest.raises(ValueError, match=r"dropout at rate 0\.5 needs random numbers"):
        layer(X, state)
    single = build(LSTM, **rate)
    single(X, single.initial_state(3))  # one layer has nothing between


def test_the_injected_operation_runs():
    calls = []

    def counted(*args, **options):
        calls.append(options["reverse"])
        return Ops().lstm(*args, **options)

    layer = nnx.eval_shape(
        lambda: LSTM(2, 4, rngs=nnx.Rngs(0), bidirectional=True, ops=Ops(lstm=counted))
    )
    nnx.eval_shape(lambda layer, x: layer(x, layer.initial_state(3)), layer, X)
    assert calls == [False, True]


@KINDS
def test_a_wrong_input_is_named(kind):
    layer = build(kind, num_layers=2)
    with pytest.raises(
        ValueError, match=rf"{kind.__name__} wants inputs \[batch, steps, 2\], got .*\(3, 6, 5\)"
    ):
        layer(random(3, 6, 5), layer.initial_state(3))
    with pytest.raises(
        ValueError, match=r"a state of shape .* = \(2, 3, 4\), got \(1, 3, 4\); begin with init"
    ):
        layer(X, build(kind).initial_state(3))


@KINDS
@pytest.mark.parametrize("size", ["num_layers", "dim", "in_dim"])
def test_sizes_are_positive(kind, size):
    sizes = {"in_dim": 2, "dim": 3, "num_layers": 1} | {size: 0}
    with pytest.raises(ValueError, match=f"{size}=0 must be at least 1"):
        kind(**sizes, rngs=nnx.Rngs(0))
