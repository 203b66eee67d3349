"""Batch k of a source as element k of a table: which rows, in which order, of what shape.

The order of rows is a function of (seed, epoch) alone, and batch k is rows k*B .. (k+1)*B of the
endless sequence of epochs. So a position is one number, nothing is ever dropped at the end of an
epoch, the batches are the same on one process and on many (each reads those positions of a batch
that lie on its devices, and no other row), and a run can go on with another number of processes.
"""

import sys
from collections.abc import Sized
from functools import lru_cache

import numpy as np

from train.data.dataset import Batch, MixedSource, Source
from train.data.sequences import SequenceSource, make_buckets

_NO_ROWS = np.zeros(0, np.int64)
_BLOCK_BYTES = 2**18  # of rows in memory that are gathered at once; they stay in the second cache


class EpochOrder:
    """The endless order of rows: epoch e is a permutation drawn from (seed, e).

    With weights, epoch e of R rows takes ``counts[i]`` rows from part i, the next ones of that
    part's own endless shuffled order, and shuffles them among each other: proportions are exact in
    every epoch and every row of a part is seen once before any is seen again.

    Raw Philox output is sorted, rather than calling ``Generator.permutation``, because numpy keeps
    the former the same in all versions and not the latter.
    """

    def __init__(self, source: Sized, seed: int, stream: int = 0):
        """Draws for ``source`` from (seed, epoch) and numbered streams from ``stream`` on."""
        mixed = isinstance(source, MixedSource)
        self.sizes = [len(part) for part in source.parts] if mixed else [len(source)]
        weights = source.weights if mixed else (1.0,)
        self.seed, self.stream = seed, stream
        self.length = sum(self.sizes)
        self.counts = _shares(self.length, weights)
        self.epoch = lru_cache(maxsize=2)(self._epoch)  # a batch touches one epoch or two
        self.epoch(0)  # sorting millions of rows takes a second, which no step should wait for

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Row numbers at positions ``start`` to ``stop`` of the endless order, int64."""
        pieces = []
        while start < stop:
            epoch, offset = divmod(start, self.length)
            piece = self.epoch(epoch)[offset : offset + stop - start]
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _epoch(self, epoch: int) -> np.ndarray:
        if len(self.sizes) == 1:
            return self.permutation(self.length, 1, epoch)
        chosen, first = [], 0
        for part, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            start = epoch * count
            passes = range(start // size, -(-(start + count) // size))
            endless = [self.permutation(size, part + 1, i) for i in passes]
            offset = start - passes.start * size if endless else 0
            chosen.append(first + np.concatenate([_NO_ROWS, *endless])[offset : offset + count])
            first += size
        return np.concatenate(chosen)[self.permutation(self.length, 0, epoch)]

    def permutation(self, size: int, stream: int, epoch: int) -> np.ndarray:
        """One drawn from (seed, stream, epoch), int64 [size]."""
        key, counter = [self.seed, epoch], [0, 0, 0, self.stream + stream]
        bits = np.random.Philox(key=key, counter=counter)
        # Not stable, which is twice as fast: two of 64 bits alike are not met in practice.
        return np.argsort(bits.random_raw(size))


def _shares(total: int, weights: tuple[float, ...]) -> list[int]:
    """Splits ``total`` in proportion to ``weights`` by the largest-remainder rule."""
    exact = np.asarray(weights, np.float64) / sum(weights) * total
    counts = np.floor(exact).astype(int)
    for i in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[i] += 1
    return counts.tolist()


class TrainTable:
    """Batch k as element k of an endless random-access table."""

    def __init__(
        self,
        source: Source,
        order: EpochOrder,
        batch_size: int,
        positions: np.ndarray,
    ):
        self._source, self._order, self._batch_size = source, order, batch_size
        self._positions = positions

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Batch:
        return self._source.gather(self._rows(index, index + 1))

    def block(self, index: int) -> list[Batch]:
        """The batches from ``index`` on of which about ``_BLOCK_BYTES`` hold, in one gather."""
        row = self._source.gather(np.zeros(1, np.int64))
        row_bytes = sum(column.nbytes for column in row.values())
        count = max(1, _BLOCK_BYTES // max(1, row_bytes * self._batch_size))
        rows = self._rows(index, index + count)
        columns = self._source.gather(rows)
        size = len(rows) // count
        return [
            {name: column[start : start + size] for name, column in columns.items()}
            for start in range(0, len(rows), size)
        ]

    def _rows(self, first: int, last: int) -> np.ndarray:
        """This process's rows of the batches ``first`` to ``last``."""
        rows = self._order.rows(first * self._batch_size, last * self._batch_size)
        if len(self._positions) == self._batch_size:
            return rows
        return rows.reshape(last - first, -1)[:, self._positions].reshape(-1)


class AllRows:
    """Every batch is all rows as they lie: means over them are the same in any order."""

    def __init__(self, source: Source, positions: np.ndarray):
        columns = source.arrays()
        if len(positions) < len(source):
            columns = {name: column[positions] for name, column in columns.items()}
        self._batch = columns

    def block(self, index: int) -> list[Batch]:
        """The one batch that there is."""
        return [self._batch]


class BucketTable:
    """Batches of rows of about the same length; see :mod:`train.data.sequences`.

    An epoch has so many batches of each bucket as its share of the rows, shuffled among each other;
    within a bucket the order of rows is endless, as :class:`EpochOrder` has it.
    """

    def __init__(self, source: SequenceSource, batch_size: int, seed: int, positions: np.ndarray):
        self._source, self._batch_size, self._positions = source, batch_size, positions
        self._buckets = make_buckets(source.lengths, batch_size)
        self._orders = [EpochOrder(b.rows, seed, 2 * i) for i, b in enumerate(self._buckets)]
        total = len(source) // batch_size
        sizes = tuple(float(len(bucket.rows)) for bucket in self._buckets)
        self._shares = [max(1, share) for share in _shares(total, sizes)]
        self._plan = lru_cache(maxsize=2)(self._draw_plan)

    def _draw_plan(self, epoch: int) -> np.ndarray:
        """The bucket of each batch of an epoch."""
        plan = np.repeat(np.arange(len(self._shares)), self._shares)
        return plan[self._orders[0].permutation(len(plan), 0, epoch)]

    def block(self, index: int) -> list[Batch]:
        """The batch ``index``; the next one may have another shape."""
        epoch, place = divmod(index, sum(self._shares))
        plan = self._plan(epoch)
        i = plan[place]
        number = epoch * self._shares[i] + int((plan[:place] == i).sum())
        start, bucket = number * self._batch_size, self._buckets[i]
        order = self._orders[i].rows(start, start + self._batch_size)
        return [self._source.gather(bucket.rows[order[self._positions]], bucket.steps)]

    def examples(self) -> list[Batch]:
        """One batch of each shape."""
        rows = np.zeros(len(self._positions), np.int64)
        return [self._source.gather(rows, bucket.steps) for bucket in self._buckets]

    @property
    def padding(self) -> float:
        """The share of padding in an epoch's batches."""
        pairs = list(zip(self._buckets, self._shares, strict=True))
        lengths = self._source.lengths.values()
        real = sum(n * sum(column[b.rows].mean() for column in lengths) for b, n in pairs)
        return 1 - float(real / sum(n * sum(b.steps.values()) for b, n in pairs))


class EvalTable:
    """Batch k of one pass in order, padded to full size with its first row."""

    def __init__(self, source: Source, batch_size: int, positions: np.ndarray):
        self._source, self._batch_size, self._positions = source, batch_size, positions

    def __len__(self) -> int:
        return -(-len(self._source) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        rows = index * self._batch_size + self._positions
        mask = rows < len(self._source)
        return {**self._source.gather(np.where(mask, rows, 0)), "mask": mask}
