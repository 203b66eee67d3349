"""The words that a masked language model has to find: how many, which, and what stands there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from train.data.masking import mask_words

MASK, VOCAB = 4, 50


def masked(key: int, tokens, maskable=None, rate=0.15, longest=None):
    tokens = jnp.asarray(tokens)
    maskable = jnp.ones(tokens.shape, bool) if maskable is None else jnp.asarray(maskable)
    got = mask_words(
        jax.random.key(key),
        tokens,
        maskable,
        rate=rate,
        mask_token=MASK,
        vocab_size=VOCAB,
        longest=longest,
    )
    return jax.tree.map(np.asarray, got)


def test_a_share_of_each_text_is_chosen():
    lengths = np.array([40, 20, 7, 3, 1])
    maskable = np.arange(40) < lengths[:, None]
    tokens = np.random.default_rng(0).integers(5, VOCAB, (5, 40))
    got = masked(0, tokens, maskable)
    assert got.chosen.sum(1).tolist() == [6, 3, 1, 1, 1]  # 15 %, and at least one
    for row in range(5):
        places = got.positions[row][got.chosen[row]]
        assert len(set(places)) == len(places) and maskable[row, places].all()
    np.testing.assert_array_equal(got.targets, np.take_along_axis(tokens, got.positions, axis=1))
    untouched = np.ones_like(maskable)
    for row in range(5):
        untouched[row, got.positions[row][got.chosen[row]]] = False
    np.testing.assert_array_equal(got.tokens[untouched], tokens[untouched])


@pytest.mark.parametrize("num_tokens", [24, 32])
def test_marks_that_all_rows_have_are_no_share(num_tokens):
    maskable = np.broadcast_to(np.arange(num_tokens) > 0, (3, num_tokens))
    tokens = np.random.default_rng(0).integers(5, VOCAB, (3, num_tokens))
    got = masked(0, tokens, maskable, longest=num_tokens - 1)
    assert got.chosen.all() and got.positions.shape[1] == round(0.15 * (num_tokens - 1))
    other = masked(0, tokens, maskable)  # the same choice, with room for more
    if other.positions.shape == got.positions.shape:
        np.testing.assert_array_equal(other.tokens, got.tokens)
    else:
        assert num_tokens == 24 and not other.chosen[:, -1].any()


def test_a_text_of_marks_alone_loses_nothing():
    got = masked(0, np.full((1, 8), 7), np.zeros((1, 8), bool))
    assert not got.chosen.any() and (got.tokens == 7).all()


def test_eighty_ten_ten():
    tokens = np.full((400, 100), 7)
    got = masked(1, tokens)
    seen = np.take_along_axis(got.tokens, got.positions, axis=1)[got.chosen]
    kept, hidden = (seen == 7).sum(), (seen == MASK).sum()
    drawn = len(seen) - kept - hidden
    # a random token is [MASK] or the old one with probability 1/V each
    expected = len(seen) * np.array([0.1 + 0.1 / VOCAB, 0.8 + 0.1 / VOCAB, 0.1 - 0.2 / VOCAB])
    assert len(seen) == 400 * 15
    assert stats.chisquare([kept, hidden, drawn], expected).pvalue > 0.01
    others = np.bincount(seen[(seen != 7) & (seen != MASK)], minlength=VOCAB)
    others = np.delete(others, [MASK, 7])
    assert stats.chisquare(others).pvalue > 0.01  # every token is as likely as every other


def test_every_place_is_as_likely():
    got = masked(2, np.full((3000, 10), 7), rate=0.2)
    places = np.bincount(got.positions.ravel(), minlength=10)
    assert stats.chisquare(places).pvalue > 0.01


@pytest.mark.parametrize("other", [0, 3])
def test_the_key_decides(other):
    tokens = np.random.default_rng(0).integers(5, VOCAB, (8, 64))
    first, second = masked(0, tokens), masked(other, tokens)
    assert (first.tokens == second.tokens).all() == (other == 0)
