"""Viterbi decoding against the enumeration of all sequences, and the rules of BIO by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.viterbi import bio_rules, viterbi

TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]
decode = jax.jit(viterbi)


def enumerated(scores, may_follow, may_start):
    """The best of all allowed sequences, and its sum."""
    best = (), -np.inf
    for tags in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        allowed = may_start[tags[0]] and all(may_follow[a][b] for a, b in itertools.pairwise(tags))
        total = sum(scores[t, tag] for t, tag in enumerate(tags))
        if allowed and total > best[1]:
            best = tags, total
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_sequences_under_bio(seed):
    scores = random(3, 5, 5, seed=seed)
    rules = bio_rules(TAGS)
    tags, totals = decode(scores, *rules)
    for row in range(3):
        wanted, total = enumerated(np.asarray(scores[row]), *map(np.asarray, rules))
        assert tags[row].tolist() == list(wanted)
        assert_close(totals[row], total)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_best_of_all_sequences_under_any_rules(data):
    bits = st.lists(st.booleans(), min_size=9, max_size=9)
    may_follow = np.array(data.draw(bits)).reshape(3, 3)
    may_start = np.array(data.draw(bits)[:3])
    scores = random(1, 4, 3, seed=data.draw(st.integers(0, 99)))
    tags, totals = decode(scores, jnp.asarray(may_follow), jnp.asarray(may_start))
    wanted, total = enumerated(np.asarray(scores[0]), may_follow, may_start)
    if wanted:
        assert tags[0].tolist() == list(wanted)
    assert_close(totals[0], total)


def test_padding_does_not_change_the_answer():
    scores, lengths = random(3, 6, 5), jnp.array([6, 3, 1])
    rules = bio_rules(TAGS)
    tags, totals = decode(scores, *rules, lengths)
    for row, length in enumerate(lengths):
        alone, total = decode(scores[row : row + 1, :length], *rules)
        assert tags[row, :length].tolist() == alone[0].tolist()
        assert (tags[row, length:] == tags[row, length - 1]).all()
        assert_close(totals[row], total[0])


def test_without_rules_each_token_has_its_likeliest_tag():
    scores = random(2, 4, 3)
    tags, totals = decode(scores, jnp.ones((3, 3), bool), jnp.ones(3, bool))
    assert (tags == jnp.argmax(scores, -1)).all()
    assert_close(totals, jnp.max(scores, -1).sum(-1))


def test_the_rules_of_bio():
    may_follow, may_start = bio_rules(TAGS)
    assert may_start.tolist() == [True, True, False, True, False]
    allowed = {TAGS[i]: [TAGS[j] for j in range(5) if may_follow[i, j]] for i in range(5)}
    assert allowed == {
        "O": ["O", "B-A", "B-B"],
        "B-A": ["O", "B-A", "I-A", "B-B"],
        "I-A": ["O", "B-A", "I-A", "B-B"],
        "B-B": ["O", "B-A", "B-B", "I-B"],
        "I-B": ["O", "B-A", "B-B", "I-B"],
    }


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["O", "A"], "tag 'A' is none of O, B-x and I-x"),
        (["O", "B-"], "tag 'B-' is none"),
        (["O", "O"], "stands twice"),
    ],
)
def test_wrong_names(tags, message):
    with pytest.raises(ValueError, match=message):
        bio_rules(tags)
