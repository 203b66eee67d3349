"""The protocol of a benchmark: what an entry is and what a competitor must be able to do.

A new benchmark is one file in `benchmarks/entries` that assigns an `Entry` to `ENTRY`, and one row
in the table of `benchmarks/entries/__init__.py`.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Arrays = Mapping[str, np.ndarray]
OURS = "ours"


class Runner(Protocol):
    """A competitor that is ready to work: compiled, with its weights and data in place."""

    def advance(self) -> Sequence[float]:
        """Do the next `len(result)` units of work, wait until they are done, give their values.

        A value is what must agree between competitors, such as the loss of a training step.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Competitor:
    """One way of doing the work; imports of what it needs belong into `build`."""

    build: Callable[[Arrays], Runner]
    requires: tuple[str, ...] = ()  # packages without which it is left out
    what: str = ""  # how it differs, if its name does not say
    part: bool = False  # does only a part of the work, to show how long that takes by itself


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Something that the figures must show: one competitor against another."""

    text: str
    against: str
    of: str = OURS  # who keeps it
    at_least_ratio: float | None = None  # the other's time over that of `of`
    at_most_ms_above: float | None = None  # the time of `of` minus the other's


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The same work, done by several competitors."""

    name: str
    summary: str  # one line: the work of one unit
    unit: str  # singular: "training step", "epoch"
    prepare: Callable[[bool], dict[str, np.ndarray]]  # quick -> initial weights and data
    competitors: Mapping[str, Competitor]  # "ours" and others
    flops: Callable[[bool], float] | None = None  # of one unit, counted once for all competitors
    timed_per_turn: int = 3  # units
    tolerance: float = 1e-4  # largest relative difference of the first three values
    promises: tuple[Promise, ...] = ()

    def __post_init__(self):
        if OURS not in self.competitors or len(self.competitors) < 2:
            raise ValueError(f"entry {self.name!r} needs a competitor {OURS!r} and another")
        for promise in self.promises:
            for name in (promise.of, promise.against):
                if name not in self.competitors or self.competitors[name].part:
                    raise ValueError(f"entry {self.name!r} promises what {name!r} cannot show")


def load(module: str) -> Entry:
    """The entry that a module of the table defines."""
    return importlib.import_module(module).ENTRY
