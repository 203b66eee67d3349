"""Order statistics of timings: a median says what is usual, p10 and p90 how far it strays."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The median and the 10th and 90th percentile of some numbers."""

    median: float
    p10: float
    p90: float
    count: int


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0 to 100), linear between neighbours, as numpy's default."""
    if not values:
        raise ValueError("no values to take a percentile of")
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values: Sequence[float]) -> float:
    """Half of the values are at most this."""
    return percentile(values, 50.0)


def summarize(values: Sequence[float]) -> Summary:
    """Median, p10 and p90."""
    return Summary(median(values), percentile(values, 10.0), percentile(values, 90.0), len(values))


def ratios(ours: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Summary:
    """How many times longer the other takes: one ratio of medians a round, then their summary."""
    rounds = zip(ours, other, strict=True)
    return summarize([median(b) / median(a) for a, b in rounds])


def geometric_mean(values: Sequence[float]) -> float:
    """The mean that fits ratios: that of r and 1/r is 1."""
    product = 1.0
    for value in values:
        product *= value ** (1 / len(values))
    return product


def short(value: float) -> str:
    """About three digits, and two after the point from 1 on: 0.996 is not 1.00."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value < 1 else f"{value:.2f}"
