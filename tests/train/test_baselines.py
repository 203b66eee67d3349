"""The n-gram baseline against counting by hand."""

import math
from collections import Counter

import numpy as np
import pytest

from tests.close import assert_close
from train.baselines import _ngram_probabilities


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_are_relative_frequencies(order):
    rng = np.random.default_rng(0)
    seen, text = rng.integers(0, 3, 200), rng.integers(0, 3, 30)
    parts = _ngram_probabilities(seen, text, 3, order)
    assert parts.shape == (30 - order + 1, order + 1)
    for length in range(1, order + 1):
        grams = Counter(tuple(seen[i : i + length]) for i in range(len(seen) - length + 1))
        heads = Counter()
        for gram, count in grams.items():
            heads[gram[:-1]] += count
        for row, end in enumerate(range(order, 31)):
            gram = tuple(text[end - length : end])
            expected = grams[gram] / heads[gram[:-1]] if heads[gram[:-1]] else 0.0
            assert_close(parts[row, length - 1], np.float64(expected))
    assert (parts[:, order] == 1 / 3).all()


def test_each_order_is_a_distribution():
    """Over the next token, for one context that was seen."""
    seen = np.random.default_rng(1).integers(0, 4, 500)
    texts = [np.array([1, 2, token]) for token in range(4)]
    total = np.sum([_ngram_probabilities(seen, text, 4, 3)[0] for text in texts], axis=0)
    assert_close(total, np.ones(4))
    assert math.isclose(total[0], 1.0)
