"""The figures that tasks put into the report: what a model got right, and where it is wrong.

Each function takes host arrays and returns a matplotlib figure in the report's style, which may
also be saved on its own: ``figure.savefig("mistakes.png")``.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from train.metrics import auroc, roc_curve
from train.report.theme import LIGHT, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.4  # inches: one column of the report, and readable on a phone
MAX_COUNTED_CLASSES = 12  # more cells than 12 x 12 are too small for a number in each
MAX_NAMED_CLASSES = 30
LONGEST_LABEL = 12  # characters of a token beside its attention
MAX_VECTOR_POINTS = 2000  # beyond, points are drawn as one raster: small files, quick pages


def confusion_matrix_figure(matrix: np.ndarray, class_names: Sequence[str]) -> "Figure":
    """Rows are true classes, columns predicted ones; the shade is the share of the row.

    Args:
      matrix: [V V] counts, as :func:`train.metrics.confusion_matrix` gives them.
      class_names: V names.
    """
    matrix, names = np.asarray(matrix), [textwrap.shorten(str(n), 16) for n in class_names]
    if matrix.shape != (len(names), len(names)):
        raise ValueError(
            f"matrix has shape {matrix.shape}, expected {(len(names),) * 2}: one a name"
        )
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with drawing(WIDTH, WIDTH * 0.92) as figure:
        axes = figure.add_subplot(xlabel="predicted", ylabel="true")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.imshow(_shaded(0.06 + 0.9 * share), interpolation="none", aspect="equal")
        if len(names) <= MAX_COUNTED_CLASSES:
            for (row, column), count in np.ndenumerate(matrix):
                dark = share[row, column] > 0.5
                axes.text(
                    column,
                    row,
                    f"{count:,}",
                    ha="center",
                    va="center_baseline",
                    color="#ffffff" if dark else LIGHT["ink"] if count else LIGHT["muted"],
                    fontsize=8 if matrix.max() < 1000 else 6.5,
                )
        stride = -(-len(names) // MAX_NAMED_CLASSES)
        shown = np.arange(0, len(names), stride)
        long = max((len(name) for name in names), default=0) > 3
        axes.set_xticks(shown, [names[i] for i in shown], rotation=90 if long else 0)
        axes.set_yticks(shown, [names[i] for i in shown])
        axes.tick_params(labelsize=8 if len(shown) <= 15 else 6.5)
    return figure


def _shaded(opacity: np.ndarray) -> np.ndarray:
    """[rows, columns, 4]: one colour, whose opacity shows on a light and on a dark page alike."""
    channels = [int(LIGHT["blue"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.dstack([*(np.full_like(opacity, channel) for channel in channels), opacity])


def image_grid_figure(
    images: ArrayLike, titles: Sequence[str], *, columns: int = 4, empty: str = "none to show"
) -> "Figure":
    """Small images with a line or two above each.

    Args:
      images: [N I I C] or [N I I], uint8, or floats from 0 (black) to 1; C is 1, 3 or 4.
      titles: N texts.
      empty: what stands there when N is 0.
    """
    images = np.asarray(images)
    if len(images) != len(titles):
        raise ValueError(f"{len(images)} images and {len(titles)} titles; expected one a picture")
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    cell = WIDTH / columns
    rows = max(-(-len(images) // columns), 1)
    wrapped = [textwrap.fill(str(title), max(int(cell * 72 / 4.2), 4)) for title in titles]
    lines = max((text.count("\n") + 1 for text in wrapped), default=1)
    white = 255 if images.dtype == np.uint8 else 1.0
    with drawing(WIDTH, rows * (cell + 0.14 * lines) if len(images) else 0.7) as figure:
        if not len(images):
            figure.text(0.5, 0.5, empty, ha="center", va="center", color=LIGHT["muted"])
        for place, (image, text) in enumerate(zip(images, wrapped, strict=True), 1):
            axes = figure.add_subplot(rows, columns, place)
            axes.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="none")
            axes.set_title(text, fontsize=7.5, pad=3, linespacing=1.15)
            axes.axis("off")
    return figure


def image_rows_figure(images: ArrayLike, names: Sequence[str] = ()) -> "Figure":
    """Rows of small grey images side by side, each row with a name before it if there are names.

    Args:
      images: [R N I J 1] or [R N I J], uint8.
      names: R texts, or none.
    """
    images = np.asarray(images)
    if names and len(names) != len(images):
        raise ValueError(f"{len(images)} rows and {len(names)} names; expected one a row")
    rows, columns, height, width = map(int, images.shape[:4])
    tall, wide = height + 1, width + 1  # a line of white between two
    sheet = np.full((rows * tall - 1, columns * wide - 1), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        image = images[row, column].reshape(height, width)
        sheet[row * tall :, column * wide :][:height, :width] = image
    with drawing(WIDTH, WIDTH * sheet.shape[0] / sheet.shape[1]) as figure:
        axes = figure.add_subplot()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="none")
        axes.set_xticks([])
        axes.set_yticks([row * tall + height / 2 for row in range(len(names))], names)
    return figure


def attention_figure(
    weights: ArrayLike, tokens: Sequence[str], looked_at: Sequence[str] | None = None
) -> "Figure":
    """A few heads, each a rectangle of weights: rows are what asks, columns what is looked at.

    Args:
      weights: [N T S], each row a distribution.
      tokens: T texts.
      looked_at: S texts; the same tokens where there are no others.
    """
    weights = np.asarray(weights)
    sides = tokens, tokens if looked_at is None else looked_at
    if weights.shape[1:] != tuple(map(len, sides)):
        raise ValueError(
            f"weights have shape {weights.shape}, expected [N, {len(sides[0])}, {len(sides[1])}]"
        )
    names, columns = ([_visible(token) for token in side] for side in sides)
    longest = max(map(len, columns), default=0)
    rows = -(-len(weights) // 2)
    with drawing(WIDTH, (WIDTH / 2 + 0.06 * longest) * rows) as figure:
        for head, square in enumerate(weights):
            axes = figure.add_subplot(rows, 2, head + 1)
            axes.grid(False)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, labelsize=min(7, 108 / max(map(len, sides))))
            axes.imshow(_shaded(square), interpolation="none", aspect="equal")
            axes.set_title(f"head {head + 1}", fontsize=7.5, pad=3)
            axes.set_xticks(range(len(columns)), columns, rotation=90 if longest > 2 else 0)
            axes.set_yticks(range(len(names)), names)
    return figure


def projection_figure(vectors: ArrayLike, names: Sequence[str]) -> "Figure":
    """Vectors as named points, along the two directions in which they differ most (PCA).

    Args:
      vectors: [N D], of which N and D are at least 2.
      names: N texts.
    """
    from sklearn.decomposition import PCA

    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or len(vectors) != len(names) or min(vectors.shape) < 2:
        raise ValueError(
            f"vectors have shape {vectors.shape} for {len(names)} names; want [N, D], a name each"
        )
    pca = PCA(n_components=2, svd_solver="full")
    points = pca.fit_transform(vectors)
    first, second = (f"{share:.0%} of the variance" for share in pca.explained_variance_ratio_)
    with drawing(WIDTH, WIDTH) as figure:
        axes = figure.add_subplot(xlabel=first, ylabel=second)
        axes.scatter(*points.T, s=6, color=LIGHT["blue"], alpha=0.55, linewidths=0)
        for (x, y), name in zip(points, names, strict=True):
            axes.annotate(
                textwrap.shorten(str(name), 16),
                (x, y),
                xytext=(2, 2),
                textcoords="offset points",
                fontsize=6,
                color=LIGHT["ink"],
            )
    return figure


def _visible(token: str) -> str:
    text = repr(token)[1:-1] if token.strip() else "␣"
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def residual_figure(predicted: ArrayLike, target: ArrayLike) -> "Figure":
    """Residuals ``ŷ - y`` over predictions, with their distribution at the side.

    Args:
      predicted: [B] real values.
      target: [B] true values in the same unit.
    """
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if predicted.shape != target.shape or predicted.ndim != 1:
        raise ValueError(
            f"predicted has shape {predicted.shape} and target {target.shape}; want [B]"
        )
    residual = predicted - target
    finite = residual[np.isfinite(residual)]
    # At least as wide as rounding errors: equal residuals have no range to be cut into bins.
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    wider = 1e-6 * max(abs(low), abs(high), 1e-6)
    with drawing(WIDTH, 3.2) as figure:
        points, side = figure.subplots(
            1, 2, sharey=True, gridspec_kw={"width_ratios": [4, 1], "wspace": 0.02}
        )
        points.set(xlabel="predicted", ylabel="predicted − true")
        points.axhline(0, color=LIGHT["muted"], linewidth=1)
        points.scatter(
            predicted,
            residual,
            s=14,
            color=LIGHT["blue"],
            alpha=0.55,
            linewidths=0,
            rasterized=len(predicted) > MAX_VECTOR_POINTS,
        )
        side.hist(
            finite,
            bins=min(max(int(np.sqrt(len(finite))), 5), 40),
            range=(low - wider, high + wider),
            orientation="horizontal",
            color=LIGHT["blue"],
            alpha=0.55,
        )
        side.axhline(0, color=LIGHT["muted"], linewidth=1)
        side.set(xticks=[], xlabel="count")
    return figure


def roc_figure(scores: ArrayLike, labels: ArrayLike) -> "Figure":
    """The receiver operating characteristic of a binary score, with the area under it.

    Args:
      scores: [B], higher for what looks positive.
      labels: [B], 1 for positive examples, else 0.

    Raises:
      ValueError: as :func:`train.metrics.roc_curve`.
    """
    false_rate, true_rate = roc_curve(labels, scores)
    with drawing(WIDTH, WIDTH * 0.85) as figure:
        axes = figure.add_subplot(xlabel="false positive rate", ylabel="true positive rate")
        axes.plot([0, 1], [0, 1], color=LIGHT["muted"], linestyle=":", linewidth=1, label="chance")
        axes.fill_between(false_rate, true_rate, color=LIGHT["blue"], alpha=0.1, linewidth=0)
        axes.plot(
            false_rate,
            true_rate,
            color=LIGHT["blue"],
            label=f"area under the curve {auroc(labels, scores):.4f}",
        )
        axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.01), aspect="equal")
        axes.legend(loc="lower right", reverse=True)
    return figure


def weights_figure(names: Sequence[str], values: ArrayLike, *, most: int = 20) -> "Figure":
    """The largest weights of a linear model as bars, in the order of their size.

    Args:
      names: N feature names.
      values: [N] weights of standardised features, so that their sizes can be compared.
      most: how many are drawn.
    """
    values = np.asarray(values, np.float64)
    if values.shape != (len(names),):
        raise ValueError(f"values has shape {values.shape}, expected {(len(names),)}: one a name")
    order = np.argsort(-np.abs(values), kind="stable")[:most]
    with drawing(WIDTH, 0.6 + 0.2 * max(len(order), 1)) as figure:
        rest = f", {len(order)} largest of {len(names)}" if len(order) < len(names) else ""
        axes = figure.add_subplot(xlabel=f"weight{rest}")
        axes.grid(False)
        axes.grid(axis="x")
        colors = [LIGHT["blue"] if value >= 0 else LIGHT["orange"] for value in values[order]]
        axes.barh(np.arange(len(order)), values[order], color=colors, height=0.68)
        axes.axvline(0, color=LIGHT["muted"], linewidth=0.7)
        axes.set_yticks(np.arange(len(order)), [textwrap.shorten(str(names[i]), 24) for i in order])
        axes.invert_yaxis()
    return figure
