"""Learning curves out of ``metrics.jsonl``: one chart a quantity, train and eval together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from train.report.theme import LIGHT, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLIT_COLORS = {"train": "blue", "eval": "orange"}
MAX_POINTS = 240  # a longer curve is drawn as the mean of so many bins, with their range behind it
SIZE = (4.4, 2.7)


class Reference(NamedTuple):
    """A horizontal line that a curve is compared with."""

    label: str
    value: float
    color: str
    dashes: str


class Curve(NamedTuple):
    """One logged quantity of one split."""

    steps: np.ndarray  # [N]
    values: np.ndarray  # [N], NaN and infinities included


def group(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Curves by quantity, then by split: ``train/loss`` is quantity ``loss`` of split ``train``."""
    found: dict[str, dict[str, tuple[list, list]]] = {}
    for row in rows:
        for key, value in row.items():
            if key in ("step", "wall_seconds") or not isinstance(value, int | float):
                continue
            split, _, quantity = key.rpartition("/") if key.count("/") < 2 else key.partition("/")
            steps, values = found.setdefault(quantity, {}).setdefault(split, ([], []))
            steps.append(row["step"])
            values.append(value)
    return {
        quantity: {split: Curve(*map(np.asarray, both)) for split, both in by_split.items()}
        for quantity, by_split in found.items()
    }


def curve_figure(curves: dict[str, Curve], references: Sequence[Reference] = ()) -> "Figure":
    """One quantity over the steps; the legend carries each curve's last value."""
    from matplotlib.ticker import MaxNLocator

    with drawing(*SIZE) as figure:
        axes = figure.add_subplot(xlabel="step")
        for index, (split, curve) in enumerate(curves.items()):
            name = SPLIT_COLORS.get(split, ("violet", "green")[index % 2])
            _draw(axes, curve, split, LIGHT[name])
        for line in references:
            axes.axhline(
                line.value,
                color=LIGHT[line.color],
                linestyle=line.dashes,
                linewidth=1.2,
                label=f"{line.label} {line.value:.4g}",
            )
        if _spans_decades(curves):
            _log_scale(axes)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
        figure.legend(loc="outside upper left", ncols=2, borderpad=0)
    return figure


def _draw(axes, curve: Curve, split: str, color: str) -> None:
    finite = np.isfinite(curve.values)
    steps, values = curve.steps[finite], curve.values[finite]
    last = f"{values[-1]:.4g}" if finite[-1] else "not finite"
    low = high = values
    if len(values) > MAX_POINTS:
        bins = np.array_split(np.arange(len(values)), MAX_POINTS)
        low, high, means = ([f(values[b]) for b in bins] for f in (np.min, np.max, np.mean))
        steps, values = np.array([steps[b[-1]] for b in bins]), np.array(means)
        axes.fill_between(steps, low, high, color=color, alpha=0.16, linewidth=0)
    few = len(values) <= 25
    axes.plot(
        steps,
        values,
        color=color,
        label=f"{split} {last}".strip(),
        marker="o" if few else None,
        markersize=3,
    )
    if not finite.all():
        axes.axvline(curve.steps[~finite][0], color=LIGHT["red"], linestyle=":", label="not finite")


def _log_scale(axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # the default needs mathtext
    axes.yaxis.set_minor_locator(NullLocator())


def _spans_decades(curves: dict[str, Curve]) -> bool:
    values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in curves.values()])
    return bool(values.size and values.min() > 0 and values.max() > 50 * values.min())
