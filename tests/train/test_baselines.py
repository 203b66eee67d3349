"""The n-gram baseline against counting by hand, and a Gaussian against the moments it is of."""

import math
from collections import Counter

import numpy as np
import pytest

from tests.close import assert_close
from train.baselines import gaussian_digits
from train.data import Dataset
from train.data.dataset import ArraySource
from train.text_baselines import _ngram_probabilities


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


def test_a_gaussian_has_the_moments_of_the_pixels():
    """Of grey images that are far from black and white, so that nothing is cut off."""
    rng = np.random.default_rng(2)
    mixing = np.array([[9.0, 0, 0, 0], [6, 5, 0, 0], [0, 4, 8, 0], [1, 1, 1, 7]])
    pixels = np.rint(120 + rng.standard_normal((4000, 4)) @ mixing.T).astype(np.uint8)
    source = ArraySource({"inputs": pixels.reshape(-1, 2, 2, 1), "targets": np.zeros(4000)})
    data = Dataset("grey", source, source, (2, 2, 1), 1, ("0",), np.zeros(1), np.ones(1))
    drawn = []

    def digit_fid(images):
        drawn.append(images)
        return 1.5

    baseline = gaussian_digits(data, 20_000, digit_fid)
    assert (baseline.name, baseline.value) == ("Gaussian of the pixels", 1.5)
    (images,) = drawn
    assert images.shape == (20_000, 2, 2, 1) and images.dtype == np.uint8
    flat = images.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(flat.mean(0), pixels.mean(0), atol=0.3)
    np.testing.assert_allclose(np.cov(flat.T), np.cov(pixels.T), atol=3)
