"""Rows of unequal length: kept end to end, batched with others of about their length.

A batch is a rectangle, so its shorter rows are padded with zeros and it says how long each one is:
a ragged column ``inputs`` comes as ``inputs`` [B, T, ...] and ``inputs_lengths`` [B]. Batches are
made of rows of one bucket, which all have the same T, so that little is padding and a step is
compiled for a few shapes only.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from train.data.dataset import Batch

MAX_BUCKETS = 12  # the step is compiled once for each
NUM_BORDERS = 50  # tried for a split
PADDING = 0.14  # the share of padding that is little enough
MOST_PADDING = 0.15  # where more than this cannot be helped, it is told


class Ragged:
    """A column of rows of unequal length, end to end in one array."""

    def __init__(self, rows: Sequence[np.ndarray]):
        self.lengths = np.array([len(row) for row in rows], np.int64)
        self.flat = np.concatenate(rows)
        self._starts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.flat[self._starts[row] : self._starts[row] + self.lengths[row]]

    def padded(self, rows: np.ndarray, steps: int) -> np.ndarray:
        """The rows [B] as [B, steps, ...], with zeros after their ends."""
        place = np.arange(steps)
        real = place < self.lengths[rows, None]
        values = self.flat[np.where(real, self._starts[rows, None] + place, 0)]
        values[~real] = 0
        return values


@dataclass(frozen=True)
class Bucket:
    """Rows that are batched with each other."""

    rows: np.ndarray
    steps: dict[str, int]
    """T of each ragged column: that of its longest row here."""

    @property
    def cells(self) -> int:
        """Steps of all rows and columns, padding included."""
        return len(self.rows) * sum(self.steps.values())


def make_buckets(lengths: Mapping[str, np.ndarray], batch_size: int) -> list[Bucket]:
    """Splits rows by the lengths of their columns, so that little of a batch is padding.

    Starts with one bucket of all rows, and makes the split that saves most padding until little is
    left; none becomes smaller than a batch. Greedy, and within a percent of the best cuts that
    dynamic programming finds along one column. Padding that stays above 15 % is told on standard
    error.

    Args:
        lengths: of each ragged column, [R].
        batch_size: rows of a batch.
    """
    real = sum(int(column.sum()) for column in lengths.values())
    # Columns that grow together, as a text and its translation do, shrink together in a split by
    # the one that is longer for its kind.
    keys = [*lengths.values(), np.max([c / max(c.mean(), 1) for c in lengths.values()], axis=0)]
    buckets = [_bucket(lengths, np.arange(len(keys[0])))]
    while (padding := _padding(real, buckets)) > PADDING:
        saved, i, halves = max(
            (_best_split(lengths, keys, buckets, i, batch_size) for i in range(len(buckets))),
            key=lambda split: split[0],
        )
        if saved <= 0 or len(buckets) == MAX_BUCKETS:
            break
        buckets[i : i + 1] = halves
    if padding > MOST_PADDING:
        finer = "" if len(buckets) == MAX_BUCKETS else "; a smaller --batch-size allows finer ones"
        print(
            f"{padding:.0%} of the batches is padding, more than {MOST_PADDING:.0%}: the lengths "
            f"of rows differ too much for {len(buckets)} of at most {MAX_BUCKETS} buckets, of "
            f"{batch_size} rows or more each{finer}",
            file=sys.stderr,
        )
    return buckets


def _padding(real: int, buckets: Sequence[Bucket]) -> float:
    """The share of the buckets' cells that are not ``real`` steps."""
    return 1 - real / sum(bucket.cells for bucket in buckets)


def _bucket(lengths: Mapping[str, np.ndarray], rows: np.ndarray) -> Bucket:
    return Bucket(rows, {name: int(column[rows].max()) for name, column in lengths.items()})


def _best_split(
    lengths: Mapping[str, np.ndarray],
    keys: Sequence[np.ndarray],
    buckets: Sequence[Bucket],
    i: int,
    batch_size: int,
) -> tuple[int, int, list[Bucket]]:
    """What the best split of bucket ``i`` in two saves, in cells; ``i``; and its halves."""
    bucket, best = buckets[i], (0, i, [])
    for key in keys:
        own = key[bucket.rows]
        for border in np.unique(np.quantile(own, np.linspace(0, 1, NUM_BORDERS), method="lower")):
            short = own <= border
            if min(short.sum(), (~short).sum()) < batch_size:
                continue
            halves = [_bucket(lengths, bucket.rows[side]) for side in (short, ~short)]
            saved = bucket.cells - sum(half.cells for half in halves)
            if saved > best[0]:
                best = saved, i, halves
    return best


class SequenceSource:
    """Columns in memory, of which one or more are ragged."""

    in_memory: ClassVar[bool] = True

    def __init__(self, columns: Mapping[str, np.ndarray | Ragged]):
        self.columns = dict(columns)
        ragged = {name: c for name, c in columns.items() if isinstance(c, Ragged)}
        self.lengths = {name: column.lengths for name, column in ragged.items()}
        self.longest = {name: int(lengths.max()) for name, lengths in self.lengths.items()}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def gather(self, indices: np.ndarray, steps: Mapping[str, int] | None = None) -> Batch:
        """The rows at ``indices``, padded to ``steps``, by default those of the longest row."""
        steps, batch = steps or self.longest, {}
        for name, column in self.columns.items():
            if isinstance(column, Ragged):
                batch[name] = column.padded(indices, steps[name])
                batch[f"{name}_lengths"] = column.lengths[indices].astype(np.int32)
            else:
                batch[name] = column[indices]
        return batch

    def arrays(self) -> Batch:
        """All rows, each as long as the longest."""
        return self.gather(np.arange(len(self)))
