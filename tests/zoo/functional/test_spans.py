"""The best spans against a loop over all starts and ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.spans import best_spans

START, END = random(3, 9, seed=0), random(3, 9, seed=1)
find = jax.jit(best_spans, static_argnames=("num_best", "max_length"))


def looped(start, end, may_answer, max_length):
    """All spans that there are, best first."""
    found = []
    for first in range(len(start)):
        for last in range(first, min(first + max_length, len(start))):
            if may_answer[first] and may_answer[last]:
                found.append((float(start[first] + end[last]), first, last))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("max_length", [1, 3, 30])
@pytest.mark.parametrize("passage", [None, (2, 7)])
def test_the_best_of_all_spans(max_length, passage):
    may_answer = None
    allowed = np.arange(9) > 0
    if passage:
        allowed = (np.arange(9) >= passage[0]) & (np.arange(9) < passage[1])
        may_answer = jnp.broadcast_to(jnp.asarray(allowed), (3, 9))
    answers = find(START, END, may_answer, num_best=5, max_length=max_length)
    for row in range(3):
        expected = looped(START[row], END[row], allowed, max_length)[:5]
        assert_close(answers.score[row], [score for score, _, _ in expected])
        spans = zip(answers.start[row].tolist(), answers.end[row].tolist(), strict=True)
        assert list(spans) == [(first, last) for _, first, last in expected]


def test_fewer_spans_than_asked_for():
    allowed = jnp.zeros((3, 9), bool).at[:, 4].set(True)
    answers = find(START, END, allowed, num_best=3)
    assert (answers.start[:, 0] == 4).all() and (answers.end[:, 0] == 4).all()
    assert jnp.isneginf(answers.score[:, 1:]).all()


def test_padding_of_minus_infinity_is_no_answer():
    """As the span head of BERT gives it."""
    real = jnp.arange(9) < 5
    answers = find(*(jnp.where(real, x, -jnp.inf) for x in (START, END)), num_best=10)
    assert (answers.end < 5).all() and jnp.isfinite(answers.score).all()


def test_no_answer_is_the_first_token():
    answers = find(START, END)
    assert_close(answers.no_answer, START[:, 0] + END[:, 0])
    margin = answers.score[:, 0] - answers.no_answer
    assert (answers.answered() == (margin > 0)).all()
    assert not answers.answered(threshold=100.0).any()
    assert answers.answered(threshold=-100.0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_best": 0}, "num_best=0 and max_length=30 must be at least 1"),
        ({"num_best": 10, "max_length": 1}, "do not exist in 9 tokens"),
    ],
)
def test_wrong_numbers(change, message):
    with pytest.raises(ValueError, match=message):
        best_spans(START, END, **change)
