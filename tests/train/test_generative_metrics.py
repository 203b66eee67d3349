"""The Fréchet distance against SciPy's matrix root and a closed form, manifolds against loops."""

import numpy as np
import pytest
import scipy.linalg

from tests.close import assert_close
from train.generative_metrics import frechet_distance, nearest, precision_recall

NUMBERS = np.random.default_rng(0)
REAL = NUMBERS.normal(size=(60, 5)) @ NUMBERS.normal(size=(5, 5))
GENERATED = NUMBERS.normal(size=(80, 5)) @ NUMBERS.normal(size=(5, 5)) + 1


def test_frechet_distance_with_the_root_of_scipy():
    cov_r, cov_g = np.cov(REAL.T), np.cov(GENERATED.T)
    root = np.real(np.asarray(scipy.linalg.sqrtm(cov_r @ cov_g)))
    expected = np.square(REAL.mean(0) - GENERATED.mean(0)).sum()
    expected += np.trace(cov_r + cov_g - 2 * root)
    assert_close(frechet_distance(REAL, GENERATED), expected)
    assert_close(frechet_distance(GENERATED, REAL), expected)


def test_frechet_distance_of_known_gaussians():
    """In one dimension it is (μ_r - μ_g)² + (σ_r - σ_g)²."""
    x = np.array([-1.0, 1.0])[:, None]  # mean 0, variance 2
    assert_close(frechet_distance(x, 3 * x + 5), 25 + (3 - 1) ** 2 * 2)
    assert frechet_distance(REAL, REAL[::-1]) < 1e-9
    assert frechet_distance(REAL, REAL + 2) == pytest.approx(4 * 5)


def test_frechet_distance_of_features_that_never_vary():
    """A dead unit of the classifier: its covariance has no inverse, and none is needed."""
    real, generated = (np.column_stack([x, np.zeros(len(x))]) for x in (REAL, GENERATED))
    assert_close(frechet_distance(real, generated), frechet_distance(REAL, GENERATED))


def inside(examples, manifold, k):
    """By the definition, ball by ball."""
    distances = np.linalg.norm(manifold[:, None] - manifold, axis=-1)
    radii = np.sort(distances, axis=1)[:, k]  # the first is that to itself
    hits = [
        any(np.linalg.norm(x - m) <= r for m, r in zip(manifold, radii, strict=True))
        for x in examples
    ]
    return np.mean(hits)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_by_their_definition(k):
    real, generated = REAL[:, :2], GENERATED[:, :2]
    precision, recall = precision_recall(real, generated, k)
    assert precision == inside(generated, real, k)
    assert recall == inside(real, generated, k)
    assert 0 < precision < 1 and 0 < recall < 1


def test_precision_and_recall_tell_two_failures_apart():
    few = np.repeat(REAL[:2], 30, axis=0) + NUMBERS.normal(size=(60, 5)) * 1e-3
    precision, recall = precision_recall(REAL, few)
    assert precision == 1 and recall < 0.2  # good ones, always the same
    precision, recall = precision_recall(REAL, 50 * NUMBERS.normal(size=(60, 5)))
    assert precision < 0.1 and recall > 0.5  # everything, and nothing that is real


def test_the_nearest_row():
    images = NUMBERS.normal(size=(20, 3, 3, 1))
    assert nearest(images[[4, 0, 19]] + 1e-3, images).tolist() == [4, 0, 19]


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (REAL, GENERATED[:, :4], r"\(60, 5\) and \(80, 4\)"),
        (REAL, GENERATED[0], "both must be"),
        (REAL[:1], GENERATED, "1 examples have no covariance"),
    ],
)
def test_features_that_cannot_be_compared(real, generated, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(real, generated)


def test_more_neighbours_than_examples():
    with pytest.raises(ValueError, match="num_neighbors=3 must be below the number of examples, 3"):
        precision_recall(REAL[:3], GENERATED)
