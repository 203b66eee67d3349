"""Draws the pictures of the pages.

    python docs/figures.py tour                 # from the variables of the tour's own snippets
    python docs/figures.py report RUN_FOLDER    # the top of a run's report, for README.md

So the pictures of the tour show the numbers that stand beside them. They are drawn in the style of
the reports, on white, as SVG without dates or random ids; the report is photographed by Chromium.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from docs import snippets
from train.report.theme import LIGHT, drawing

DOCS = Path(__file__).resolve().parent
ASSETS = DOCS / "assets"
Tour = dict[str, Any]  # the variables after the last snippet of the tour


def _numbers(axes: Any, values: np.ndarray) -> None:
    """An array as squares with its numbers in them; blue is positive, orange negative."""
    most = float(np.abs(values).max())
    axes.imshow(values, cmap=_blue_and_orange(), vmin=-most, vmax=most, interpolation="none")
    for (row, column), value in np.ndenumerate(values):
        color = "white" if abs(value) > 0.6 * most else LIGHT["ink"]
        text = f"{value:.2f}".replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", size=6.5, color=color)
    axes.axis("off")


def _blue_and_orange() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", [LIGHT["orange"], "#ffffff", LIGHT["blue"]])


def pixels(tour: Tour) -> Figure:
    """The digit, and the numbers of a part of it."""
    with drawing(6.4, 2.6) as figure:
        whole, part = figure.subplots(1, 2, width_ratios=[1, 1.6])
        whole.imshow(tour["image"][..., 0], cmap="gray", interpolation="none")
        whole.add_patch(Rectangle((9.5, 9.5), 10, 6, fill=False, color=LIGHT["orange"]))
        whole.set(xticks=[0, 9, 18, 27], yticks=[0, 9, 18, 27])
        whole.grid(False)
        values = tour["image"][10:16, 10:20, 0]
        part.imshow(values, cmap="gray", vmin=0, vmax=255, interpolation="none")
        for (row, column), value in np.ndenumerate(values):
            color = "white" if value < 130 else LIGHT["ink"]
            part.text(column, row, str(value), ha="center", va="center", size=7, color=color)
        part.set_title("rows 10 to 15, columns 10 to 19", fontsize=8, pad=6)
        part.axis("off")
    return figure


def convolution(tour: Tour) -> Figure:
    """Nine pixels times nine weights, summed."""
    window, weights = np.asarray(tour["window"]), np.asarray(tour["kernel"])[:, :, 0, 0]
    products = window * weights
    parts = [("pixels", window), ("kernel", weights), ("products", products)]
    with drawing(6.4, 1.9) as figure:
        columns = figure.subplots(
            1, 4, gridspec_kw={"width_ratios": [1, 1, 1, 0.8], "wspace": 0.25}
        )
        for axes, (title, values), sign in zip(columns, parts, ("×", "=", "sum"), strict=False):
            _numbers(axes, values)
            axes.set_title(title, fontsize=8)
            axes.text(3.05, 1, sign, ha="center", va="center", size=10)
        columns[3].text(
            0.5, 0.5, f"{products.sum():.4f}".replace("-", "−"), ha="center", va="center", size=10
        )
        columns[3].axis("off")
    return figure


def channels(tour: Tour) -> Figure:
    """Eight channels after each of the first three operations."""
    stages = [("convolution", "convolved"), ("relu", "bent"), ("pooling", "pooled")]
    with drawing(6.4, 2.9) as figure:
        grid = figure.subplots(3, 8)
        for row, (title, name) in zip(grid, stages, strict=True):
            for channel, axes in enumerate(row):
                values = np.asarray(tour[name])[0, :, :, channel]
                most = float(np.abs(tour["convolved"][..., :8]).max())
                axes.imshow(
                    values, cmap=_blue_and_orange(), vmin=-most, vmax=most, interpolation="none"
                )
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(True)
                axes.spines[:].set_color(LIGHT["line"])
            row[0].set_ylabel(f"{title}\n{values.shape[0]} × {values.shape[1]}", fontsize=7.5)
    return figure


def learning(tour: Tour) -> Figure:
    """The loss of each step of the loop, and the probabilities it changed."""
    before, after = np.asarray(tour["p"]), np.asarray(tour["answer"]["probabilities"])[0]
    with drawing(6.4, 2.4) as figure:
        curve, bars = figure.subplots(1, 2)
        curve.plot(np.arange(1, len(tour["losses"]) + 1), tour["losses"], color=LIGHT["blue"])
        curve.set(xlabel="step", ylabel="loss of the batch", ylim=(0, None))
        digits = np.arange(10)
        bars.bar(digits - 0.2, before, 0.4, color=LIGHT["orange"], label="untrained")
        bars.bar(digits + 0.2, after, 0.4, color=LIGHT["blue"], label="after 40 steps")
        bars.set(xlabel="digit", ylabel="probability", xticks=digits, ylim=(0, 1))
        bars.legend()
    return figure


FIGURES: dict[str, Callable[[Tour], Figure]] = {
    "tour-pixels.svg": pixels,
    "tour-convolution.svg": convolution,
    "tour-channels.svg": channels,
    "tour-learning.svg": learning,
}


SAVED: dict[str, Any] = {
    "facecolor": "white",
    "metadata": {"Date": None},
    "bbox_inches": "tight",  # titles of square axes lie outside the layout
    "pad_inches": 0.08,
}


def draw(tour: Tour, folder: Path) -> None:
    """Writes every picture into a folder."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "zoo-from-scratch"}):
        for name, make in FIGURES.items():
            make(tour).savefig(folder / name, **SAVED)


def draw_tour() -> None:
    """Runs the tour in an empty folder and draws what it found."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        variables, _ = snippets.run(DOCS / "tour.md")
    draw(variables, ASSETS)


def photograph(run: Path) -> None:
    """Writes what a window of 1000 by 990 pixels shows of a run's report."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("error: neither chromium nor google-chrome is on the PATH; install one")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--screenshot={ASSETS / 'report.png'}",
                "--window-size=1000,990",
                (run / "report.html").resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Draws what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("tour", help="draw the pictures of the tour")
    verbs.add_parser("report", help="photograph a report").add_argument("run", type=Path)
    arguments = parser.parse_args()
    ASSETS.mkdir(exist_ok=True)
    if arguments.verb == "tour":
        draw_tour()
    else:
        photograph(arguments.run)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
