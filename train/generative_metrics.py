"""How far generated examples are from real ones, by features of both; on the host, in float64.

Features are what a trained classifier sees in an example, so that a distance between two of them
means something. One row is one example.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

Features = Float[np.ndarray, "_ D"]


def frechet_distance(real: ArrayLike, generated: ArrayLike) -> float:
    """``‖μ_r - μ_g‖² + Tr(Σ_r + Σ_g - 2 (Σ_r Σ_g)^½)`` (Heusel et al. 2017, eq. 6).

    The squared Wasserstein distance of the two Gaussians that fit the features best. It is biased:
    fewer examples give more, so compare only what was measured with the same numbers of them.

    Raises:
      ValueError: fewer than two examples, which have no covariance, or other features.
    """
    real, generated = _checked(real, generated)
    (mean_r, cov_r), (mean_g, cov_g) = (
        (x.mean(0), np.cov(x, rowvar=False).reshape(x.shape[1], -1)) for x in (real, generated)
    )
    # Σ_r Σ_g has the eigenvalues of the symmetric Σ_r^½ Σ_g Σ_r^½, whose root is a safe one.
    values, vectors = np.linalg.eigh(cov_r)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_g @ root), 0)).sum()
    distance = np.square(mean_r - mean_g).sum() + np.trace(cov_r) + np.trace(cov_g) - 2 * shared
    return float(max(distance, 0.0))


def precision_recall(
    real: ArrayLike, generated: ArrayLike, num_neighbors: int = 3
) -> tuple[float, float]:
    """How much of what is generated looks real, and how much of what is real is generated.

    The manifold of a set is the union of balls around its examples, each as large as the distance
    to its k-th nearest neighbour in the set. Precision is the share of generated examples inside
    the real manifold, recall that of real ones inside the generated manifold (Kynkäänniemi et al.
    2019, eq. 1 and 2).

    Raises:
      ValueError: too few examples for so many neighbours, or other features.
    """
    real, generated = _checked(real, generated)
    if (fewest := min(len(real), len(generated))) <= num_neighbors:
        raise ValueError(f"{num_neighbors=} must be below the number of examples, {fewest}")
    return (
        _share_inside(generated, real, num_neighbors),
        _share_inside(real, generated, num_neighbors),
    )


def nearest(examples: ArrayLike, among: ArrayLike) -> np.ndarray:
    """The row of the nearest of ``among`` for each example: what it would be a copy of."""
    from sklearn.neighbors import NearestNeighbors

    examples, among = np.asarray(examples, np.float64), np.asarray(among, np.float64)
    examples, among = (x.reshape(x.shape[0], -1) for x in (examples, among))
    found = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(among)
    return found.kneighbors(examples, return_distance=False)[:, 0]


def _share_inside(examples: Features, manifold: Features, num_neighbors: int) -> float:
    """Of the examples, those in the ball of at least one row of the manifold."""
    from sklearn.metrics import pairwise_distances_chunked
    from sklearn.neighbors import NearestNeighbors

    neighbors = NearestNeighbors(n_neighbors=num_neighbors, algorithm="brute").fit(manifold)
    radii = neighbors.kneighbors()[0][:, -1]  # without itself
    inside = [
        (distances <= radii).any(1) for distances in pairwise_distances_chunked(examples, manifold)
    ]
    return float(np.concatenate(inside).mean())


def _checked(real: ArrayLike, generated: ArrayLike) -> tuple[Features, Features]:
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"features have shapes {real.shape} and {generated.shape}; both must be [examples, "
            "features] with the same features"
        )
    if (fewest := min(len(real), len(generated))) < 2:
        raise ValueError(f"{fewest} examples have no covariance; give at least 2")
    return real, generated
