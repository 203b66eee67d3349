"""What a person sees while a run goes on: a progress bar on a terminal, plain lines elsewhere.

All of it goes to standard error; standard output belongs to results.
"""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from train.config import Recipe


def standard_error() -> Console:
    """Where everything goes that is not a result; lines are never folded."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class Display:
    """The progress of one run's steps: loss, metric, samples per second and the time left."""

    def __init__(self, console: Console, recipe: Recipe, start: int = 0):
        self.console, self.steps, self.batch_size = console, recipe.steps, recipe.batch_size
        self._start, self._began = start, time.perf_counter()
        self._bar = Progress(
            TextColumn("[bold]train"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=self.steps, completed=start, values="")

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def rate(self, step: int) -> float:
        """Samples a second since the run started or resumed."""
        return (step - self._start) * self.batch_size / max(time.perf_counter() - self._began, 1e-9)

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Moves the bar; ``values`` are the newest metrics."""
        self._bar.update(
            self._task, completed=step, values=f"{_words(values)}  {self.rate(step):.0f} samples/s"
        )

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """Says a milestone, on a terminal above the bar."""
        left = (self.steps - step) * self.batch_size / max(self.rate(step), 1e-9)
        self.console.print(
            f"step {step}/{self.steps}  {_words(values)}  {self.rate(step):.0f} samples/s"
            + (f"  {left:.0f} s left" if step < self.steps else ""),
        )


def _words(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
