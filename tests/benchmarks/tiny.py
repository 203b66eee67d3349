"""A benchmark whose competitors need no library: sums of the same numbers."""

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Some numbers."""
    return {"numbers": np.arange(10.0 if quick else 1000.0)}


class Sum:
    """Adds the numbers up, times a factor; counts its calls, so that each value is another."""

    def __init__(self, arrays: Arrays, factor: float = 1.0):
        self.numbers, self.factor, self.calls = arrays["numbers"], factor, 0
        print("a library that prints to standard output while it loads")

    def advance(self) -> list[float]:
        """One unit."""
        self.calls += 1
        return [self.factor * float(self.numbers.sum()) + self.calls]


class Pairs(Sum):
    """Two units at once."""

    def advance(self) -> list[float]:
        """Two units."""
        return super().advance() + super().advance()


ENTRY = Entry(
    name="tiny",
    summary="A sum of numbers.",
    unit="sum",
    prepare=prepare,
    flops=lambda quick: 9.0 if quick else 999.0,
    competitors={
        OURS: Competitor(build=Sum),
        "pairs": Competitor(build=Pairs, what="two at once"),
        "half": Competitor(build=lambda arrays: Sum(arrays, factor=0.5), part=True),
        "absent": Competitor(build=Sum, requires=("a_package_that_is_not_there",)),
    },
    timed_per_turn=4,
    promises=(
        Promise(text="a sum is quick", against="pairs", at_most_ms_above=1e6),
        Promise(text="a sum is a million times as quick", against="pairs", at_least_ratio=1e6),
        Promise(text="so are pairs", of="pairs", against="ours", at_least_ratio=1e6),
    ),
)
