"""What a model must beat, computed in the same run on the same split by somebody else's code.

Those of text stand in `train.text_baselines`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from train.config import Recipe
from train.data import Dataset
from train.metrics import accuracy, rmse
from train.recipes import RECIPES
from train.task import Baseline


def _matrices(data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Standardised inputs flattened to two axes, and targets: train, then evaluation."""
    train, held_out = data.train.arrays(), data.eval.arrays()
    flat = [
        ((part["inputs"] - data.mean) / data.std).reshape(len(part["inputs"]), -1)
        for part in (train, held_out)
    ]
    return flat[0], train["targets"], flat[1], held_out["targets"]


def least_squares(data: Dataset) -> Baseline:
    """RMSE of ``argmin_w ‖Xw + b - y‖²`` by a singular value decomposition."""
    x, y, x_eval, y_eval = _matrices(data)
    with_ones = [np.column_stack([m, np.ones(len(m))]) for m in (x, x_eval)]
    weights, *_ = np.linalg.lstsq(with_ones[0], y, rcond=None)
    return Baseline("numpy.linalg.lstsq", rmse(y_eval, with_ones[1] @ weights))


def logistic_regression(data: Dataset) -> Baseline:
    """Accuracy of scikit-learn's logistic regression with its default penalty.

    The solver stops early, at a tolerance of 0.01: on the digits that is the stronger baseline
    (0.908 against 0.882 when it converges, and overfits) in a tenth of the time.
    """
    from sklearn.linear_model import LogisticRegression

    x, y, x_eval, y_eval = _matrices(data)
    fitted = LogisticRegression(max_iter=1000, tol=1e-2).fit(x, y)
    return Baseline("scikit-learn LogisticRegression", accuracy(y_eval, fitted.predict(x_eval)))


def nearest_series(data: Dataset) -> Baseline:
    """Accuracy of the label of the train series that is nearest by dynamic time warping."""
    train, held_out = data.train.arrays(), data.eval.arrays()
    nearest = [
        _warped_distances(train["inputs"], train["inputs_lengths"], series[:length]).argmin()
        for series, length in zip(held_out["inputs"], held_out["inputs_lengths"], strict=True)
    ]
    value = accuracy(held_out["targets"], train["targets"][nearest])
    return Baseline("1-NN, dynamic time warping", value)


def _warped_distances(series: np.ndarray, lengths: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Dynamic time warping (Sakoe & Chiba 1978) of each of [R, T, C] with one [S, C].

    `D_ts = ‖x_t - y_s‖² + min(D_t-1,s, D_t,s-1, D_t-1,s-1)`; the distance is D at both ends.
    """
    cost = np.square(series[:, :, None] - other).sum(-1)
    total = np.full((len(series), series.shape[1] + 1, len(other) + 1), np.inf)
    total[:, 0, 0] = 0
    for t in range(series.shape[1]):
        for s in range(len(other)):
            before = np.minimum(total[:, t, s], np.minimum(total[:, t, s + 1], total[:, t + 1, s]))
            total[:, t + 1, s + 1] = cost[:, t, s] + before
    return total[np.arange(len(series)), lengths, -1]


def translate_lstm(recipe: Recipe, folder: Path) -> Baseline:
    """BLEU of translate-lstm after as many steps of as many of the same pairs, in ``folder``."""
    same = ("data", "seed", "steps", "batch_size", "eval_every", "eval_batch_size")
    return _trained("translate-lstm", recipe, same, folder, "bleu")


def digits_mlp(recipe: Recipe, folder: Path) -> Baseline:
    """Accuracy of digits-mlp on the data and with the seed of ``recipe``, trained in ``folder``."""
    return _trained("digits-mlp", recipe, ("data", "seed"), folder, "accuracy")


def digits_gan(recipe: Recipe, folder: Path) -> Baseline:
    """digit-FID of digits-gan with the data and the seed of ``recipe``, trained in ``folder``."""
    return _trained("digits-gan", recipe, ("data", "seed"), folder, "digit_fid")


def probabilistic_pca(train: np.ndarray, held_out: np.ndarray, num_directions: int) -> Baseline:
    """Mean log-likelihood of held-out rows by a Gaussian with so many free directions, in nats.

    Tipping & Bishop 1999: the best that a linear decoder of Gaussian codes can be.

    Args:
      train: [N D].
      held_out: [M D].
      num_directions: the width of the code.
    """
    from sklearn.decomposition import PCA

    pca = PCA(n_components=num_directions, svd_solver="full").fit(train.astype(np.float64))
    return Baseline(f"PCA Gaussian of {num_directions}", float(pca.score(held_out)))


def principal_components(train: np.ndarray, held_out: np.ndarray, num_directions: int) -> Baseline:
    """Mean squared error of held-out rows told by so many principal components of the train rows.

    Args:
      train: [N D].
      held_out: [M D].
      num_directions: the width of the code.
    """
    from sklearn.decomposition import PCA

    pca = PCA(n_components=num_directions, svd_solver="full").fit(train.astype(np.float64))
    told = pca.inverse_transform(pca.transform(held_out))
    return Baseline(f"PCA of {num_directions}", float(np.mean(np.square(told - held_out))))


def gaussian_digits(data: Dataset, num: int, digit_fid: Callable[[np.ndarray], float]) -> Baseline:
    """digit-FID of the normal distribution that has the mean and covariance of the train split.

    Args:
      data: grey images of 0 to 255.
      num: images drawn of it; values beyond black and white become these.
      digit_fid: of images.
    """
    images = data.train.arrays()["inputs"]
    pixels = images.reshape(len(images), -1).astype(np.float64)
    draws = np.random.default_rng(0).multivariate_normal(
        pixels.mean(0), np.cov(pixels, rowvar=False), num, method="eigh"
    )
    drawn = np.clip(np.rint(draws), 0, 255).astype(np.uint8).reshape(num, *images.shape[1:])
    return Baseline("Gaussian of the pixels", digit_fid(drawn))


def _trained(name: str, recipe: Recipe, same: Sequence[str], folder: Path, metric: str) -> Baseline:
    """A metric of recipe ``name`` with some fields the same as in ``recipe``."""
    from train.loop import run  # the loop runs the task that asks for this baseline

    other = RECIPES[name].load()
    task = dataclasses.replace(other.task, baseline="none")
    fields = {field: getattr(recipe, field) for field in same}
    result = run(dataclasses.replace(other, task=task, **fields), workdir=folder / "baseline")
    return Baseline(name, result["metrics"][f"eval/{metric}"])
