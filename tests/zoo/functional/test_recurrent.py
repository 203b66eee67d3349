"""Recurrence by definition: a scan is a loop over the cell, and a masked step does not happen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.recurrent import (
    LSTMState,
    gru,
    gru_cell,
    length_mask,
    lstm,
    lstm_cell,
    rnn,
    rnn_cell,
)

BATCH, STEPS, IN_DIM, DIM = 3, 6, 2, 4
X = random(BATCH, STEPS, IN_DIM)
MASK = length_mask(jnp.array([6, 2, 0]), STEPS)


def weights(num_gates, num_biases):
    shapes = [(IN_DIM, num_gates * DIM), (DIM, num_gates * DIM)]
    shapes += [(num_gates * DIM,)] * num_biases
    return [0.5 * random(*shape, seed=10 + index) for index, shape in enumerate(shapes)]


def state(count):
    return tuple(random(BATCH, DIM, seed=20 + index) for index in range(count))


# Whole sequence as (x, carry, mask, reverse) -> (outputs, carry), one step as (x, carry) -> carry,
# the first carry; a carry is a tuple, its first part the output.
LSTM_WEIGHTS, GRU_WEIGHTS, RNN_WEIGHTS = weights(4, 1), weights(3, 2), weights(1, 1)


def run_lstm(x, carry, **options):
    return lstm(x, *carry, *LSTM_WEIGHTS, **options)


def run_gru(x, carry, **options):
    outputs, h = gru(x, *carry, *GRU_WEIGHTS, **options)
    return outputs, (h,)


def run_rnn(x, carry, **options):
    outputs, h = rnn(x, *carry, *RNN_WEIGHTS, **options)
    return outputs, (h,)


SEQUENCES = pytest.mark.parametrize(
    ("sequence", "cell", "carry"),
    [
        (run_lstm, lambda x, carry: lstm_cell(x, *carry, *LSTM_WEIGHTS), state(2)),
        (run_gru, lambda x, carry: (gru_cell(x, *carry, *GRU_WEIGHTS),), state(1)),
        (run_rnn, lambda x, carry: (rnn_cell(x, *carry, *RNN_WEIGHTS),), state(1)),
    ],
    ids=["lstm", "gru", "rnn"],
)


@SEQUENCES
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_the_scan_is_a_loop_over_the_cell(sequence, cell, carry, mask, reverse):
    outputs, last = jax.jit(lambda x, c: sequence(x, c, mask=mask, reverse=reverse))(X, carry)
    expected = np.zeros((BATCH, STEPS, DIM), np.float32)
    cell = jax.jit(cell)
    for t in reversed(range(STEPS)) if reverse else range(STEPS):
        after = cell(X[:, t], carry)
        real = np.ones((BATCH, 1), bool) if mask is None else np.asarray(mask[:, t, None])
        carry = tuple(np.where(real, new, old) for new, old in zip(after, carry, strict=True))
        expected[:, t] = np.where(real, after[0], 0)
    assert_close(outputs, expected)
    assert_close(list(last), list(carry))


@SEQUENCES
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_never_changes_an_answer(sequence, cell, carry, reverse):
    """Neither what stands in it nor how much there is; and no gradient reaches it."""

    @jax.jit
    def total(x, mask):
        outputs, last = sequence(x, carry, mask=mask, reverse=reverse)
        return sum(jnp.sum(jnp.sin(a)) for a in (outputs, *last))

    longer = jnp.concatenate([X, jnp.full((BATCH, 2, IN_DIM), 1e3)], axis=1)
    longer_mask = jnp.pad(MASK, ((0, 0), (0, 2)))
    other = jnp.where(MASK[..., None], X, -7)
    plain = total(X, MASK)
    assert_close(total(other, MASK), plain)
    assert_close(total(longer, longer_mask), plain)
    gradient = jax.jit(jax.grad(total))(X, MASK)
    assert jnp.all(jnp.where(MASK[..., None], 0, gradient) == 0)
    assert jnp.all(jnp.any(gradient != 0, axis=-1) == MASK)


@SEQUENCES
def test_a_sequence_may_be_cut_anywhere(sequence, cell, carry):
    whole = sequence(X, carry, mask=MASK)
    for cut in (0, 2, STEPS):
        first, between = sequence(X[:, :cut], carry, mask=MASK[:, :cut])
        second, last = sequence(X[:, cut:], between, mask=MASK[:, cut:])
        assert_close([jnp.concatenate([first, second], axis=1), last], list(whole))


@SEQUENCES
def test_reversed_is_forwards_over_the_reversed_steps(sequence, cell, carry):
    outputs, last = sequence(X, carry, reverse=True)
    expected, expected_last = sequence(X[:, ::-1], carry)
    assert_close([outputs, last], [expected[:, ::-1], expected_last])


def test_bfloat16_products_with_a_float32_state():
    """The cast of the weights is the layer's work."""
    low = [w.astype(jnp.bfloat16) for w in LSTM_WEIGHTS]
    outputs, (h, c) = lstm(X.astype(jnp.bfloat16), *state(2), *low)
    assert (outputs.dtype, h.dtype, c.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    assert_close(outputs, lstm(X, *state(2), *LSTM_WEIGHTS)[0], kind="bf16")


def test_an_open_forget_gate_keeps_the_cell():
    """Gates of exactly 1 and 0 carry the cell through any number of steps, and its gradient."""
    shut = jnp.concatenate([jnp.full(DIM, -1e3), jnp.full(DIM, 1e3), jnp.zeros(2 * DIM)])
    h0, c0 = state(2)

    def last_cell(c0):
        w_x, w_h, _ = LSTM_WEIGHTS
        return lstm(jnp.tile(X, (1, 50, 1)), h0, c0, 0 * w_x, 0 * w_h, shut)[1][1]

    cell, backward = jax.vjp(last_cell, c0)
    assert jnp.array_equal(cell, c0)
    assert jnp.array_equal(backward(c0)[0], c0)


def test_a_state_is_a_tree():
    carry = LSTMState(*state(2))
    doubled = jax.jit(lambda carry: jax.tree.map(lambda a: 2 * a, carry))(carry)
    assert isinstance(doubled, LSTMState)
    assert_close([doubled.h, doubled.c], [2 * carry.h, 2 * carry.c])


def test_length_mask():
    assert length_mask(jnp.array([2, 0, 5]), 3).tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
