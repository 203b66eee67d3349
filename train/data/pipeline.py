"""From a source to batches: seeded order, shards, background threads, the device, the position.

The order of rows is a function of (seed, epoch) alone, and batch k is rows k*B .. (k+1)*B of the
endless sequence of epochs. So a position is one number, nothing is ever dropped at the end of an
epoch, the batches are the same on one process and on many (process p of P takes the p-th of P equal
parts of every batch), and a run can go on with another number of processes.
"""

import os
import sys
from collections import deque
from collections.abc import Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np

from train.data.dataset import ArraySource, Batch, MixedSource, Source
from train.data.sequences import SequenceSource, make_buckets
from train.errors import UserError

_NO_ROWS = np.zeros(0, np.int64)
_BLOCK_BYTES = 2**18  # of rows in memory that are gathered at once; they stay in the second cache


@runtime_checkable
class Batches(Protocol):
    """An iterator over batches whose position can be saved and set."""

    def __iter__(self) -> "Batches": ...

    def __next__(self) -> dict[str, Any]: ...

    def get_state(self) -> dict[str, int]:
        """The position of the next batch that was not delivered yet; JSON can hold it."""
        ...

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a position that ``get_state`` gave."""
        ...


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


class _TrainTable:
    """Batch k as element k of an endless random-access table."""

    def __init__(
        self,
        source: Source,
        order: EpochOrder,
        batch_size: int,
        shard: tuple[int, int],
    ):
        self._source, self._order, self._batch_size = source, order, batch_size
        self._index, self._count = shard

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
        return rows.reshape(last - first, self._count, -1)[:, self._index].reshape(-1)


class _AllRows:
    """Every batch is all rows as they lie: means over them are the same in any order."""

    def __init__(self, source: Source, shard: tuple[int, int]):
        index, count = shard
        self._batch = {k: np.split(column, count)[index] for k, column in source.arrays().items()}

    def block(self, index: int) -> list[Batch]:
        """The one batch that there is."""
        return [self._batch]


class _BucketTable:
    """Batches of rows of about the same length; see :mod:`train.data.sequences`.

    An epoch has so many batches of each bucket as its share of the rows, shuffled among each other;
    within a bucket the order of rows is endless, as :class:`EpochOrder` has it.
    """

    def __init__(self, source: SequenceSource, batch_size: int, seed: int, shard: tuple[int, int]):
        self._source, self._batch_size = source, batch_size
        self._index, self._count = shard
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
        local = self._batch_size // self._count
        start = number * self._batch_size + self._index * local
        bucket = self._buckets[i]
        rows = bucket.rows[self._orders[i].rows(start, start + local)]
        return [self._source.gather(rows, bucket.steps)]

    def examples(self) -> list[Batch]:
        """One batch of each shape."""
        rows = np.zeros(self._batch_size // self._count, np.int64)
        return [self._source.gather(rows, bucket.steps) for bucket in self._buckets]

    @property
    def padding(self) -> float:
        """The share of padding in an epoch's batches."""
        pairs = list(zip(self._buckets, self._shares, strict=True))
        lengths = self._source.lengths.values()
        real = sum(n * sum(column[b.rows].mean() for column in lengths) for b, n in pairs)
        return 1 - float(real / sum(n * sum(b.steps.values()) for b, n in pairs))


class _EvalTable:
    """Batch k of one pass in order, padded to full size with its first row."""

    def __init__(self, source: Source, batch_size: int, shard: tuple[int, int]):
        self._source, self._batch_size = source, batch_size
        self._index, self._count = shard

    def __len__(self) -> int:
        return -(-len(self._source) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        local = self._batch_size // self._count
        rows = index * self._batch_size + self._index * local + np.arange(local)
        mask = rows < len(self._source)
        return {**self._source.gather(np.where(mask, rows, 0)), "mask": mask}


class TrainBatches:
    """Endless shuffled batches; those of records are made ahead in background threads by grain."""

    def __init__(self, source: Source, batch_size: int, seed: int, shard: tuple[int, int]):
        self._identity = {"batch_size": batch_size, "seed": seed, "num_rows": len(source)}
        self.padding: float | None = None
        """The share of padding in batches of sequences."""
        if isinstance(source, SequenceSource):
            table = _BucketTable(source, batch_size, seed, shard)
            self._iterator, self._examples = _InMemory(table), table.examples()
            self.padding = table.padding
            return
        local = batch_size // shard[1]
        self._examples = [source.gather(np.zeros(local, np.int64))]
        if batch_size == len(source) and isinstance(source, ArraySource):
            self._iterator = _InMemory(_AllRows(source, shard))
            return
        table = _TrainTable(source, EpochOrder(source, seed), batch_size, shard)
        self._iterator = _InMemory(table) if _is_in_memory(source) else _read_ahead(table)

    def examples(self) -> list[Batch]:
        """One batch of each shape that will come, for compiling."""
        return self._examples

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, int]:
        """The number of the next undelivered batch, with what that number is a number of."""
        return {"next_batch": self._iterator.get_state()["next_index"], **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a saved position.

        Raises:
            UserError: when it was saved with another batch size, seed or number of rows.
        """
        for name, value in self._identity.items():
            if state[name] != value:
                raise UserError(
                    f"the saved data position belongs to {name}={state[name]}, this run has "
                    f"{name}={value}: use the same value, or another work folder"
                )
        self._iterator.set_state({"next_index": state["next_batch"]})


def train_batches(
    source: Source, *, batch_size: int, seed: int, shard: tuple[int, int] | None = None
) -> TrainBatches:
    """Endless batches of ``source``, shuffled anew each epoch.

    Args:
        source: where rows come from.
        batch_size: rows of one step over all processes; each gets an equal part of every batch.
        seed: decides the order of rows, nothing else does.
        shard: (index, count) of this process; JAX's own by default.

    Raises:
        UserError: when the batch is larger than the source or not divisible by the processes.
    """
    shard = _checked_shard(batch_size, shard)
    if not 0 <= seed < 2**64:
        raise UserError(f"seed={seed} must lie in 0 .. 2**64 - 1")
    if batch_size > len(source):
        raise UserError(
            f"batch size {batch_size} is larger than the train split of {len(source)} rows: "
            f"use at most {len(source)}"
        )
    return TrainBatches(source, batch_size, seed, shard)


def eval_batches(
    source: Source, *, batch_size: int, shard: tuple[int, int] | None = None
) -> Iterator[Batch]:
    """One pass over ``source`` in order; ``mask`` [B] is False on the last batch's padding rows.

    Args:
        source: where rows come from.
        batch_size: rows of one batch over all processes; each gets an equal part.
        shard: (index, count) of this process; JAX's own by default.

    Raises:
        UserError: when the batch is not divisible by the processes.
    """
    table = _EvalTable(source, batch_size, _checked_shard(batch_size, shard))
    return (table[i] for i in range(len(table))) if _is_in_memory(source) else _read_ahead(table)


class _InMemory:
    """Reads a table on the thread that asks, some batches at once.

    A thread's hand-over of a batch would take longer than its gather; and in a training loop, where
    each step leaves the caches cold, one gather of many batches costs hardly more than one of one.
    """

    def __init__(self, table: _TrainTable | _BucketTable | _AllRows):
        self._table, self._next = table, 0
        self._block: deque[Batch] = deque()

    def __iter__(self) -> "_InMemory":
        return self

    def __next__(self) -> Batch:
        if not self._block:
            self._block.extend(self._table.block(self._next))
        self._next += 1
        return self._block.popleft()

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        self._block.clear()
        self._next = state["next_index"]


def _is_in_memory(source: Source) -> bool:
    parts = source.parts if isinstance(source, MixedSource) else (source,)
    return all(part.in_memory for part in parts)


def _read_ahead(table: _TrainTable | _EvalTable) -> grain.DatasetIterator:
    """An iterator over the table with ``get_state`` and ``set_state``, its reads made ahead."""
    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(grain.MapDataset.source(table).to_iter_dataset(options))


def _checked_shard(batch_size: int, shard: tuple[int, int] | None) -> tuple[int, int]:
    index, count = shard or (jax.process_index(), jax.process_count())
    if batch_size < 1 or batch_size % count:
        raise UserError(f"batch size {batch_size} must be a positive multiple of {count} processes")
    return index, count


class DeviceBatches:
    """Keeps ``ahead`` batches on their way to the device while the step before them runs.

    A thread of its own fetches and transfers, since one transfer costs the host about 0.2 ms.
    """

    def __init__(self, iterator: Batches, sharding: jax.sharding.Sharding | None, ahead: int):
        self._iterator, self._sharding, self._ahead = iterator, sharding, ahead
        self._position = iterator.get_state()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="to-device")
        self._pending: deque[Future[tuple[dict[str, jax.Array], dict[str, int]]]] = deque()

    def __iter__(self) -> "DeviceBatches":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        while len(self._pending) <= self._ahead:
            self._pending.append(self._worker.submit(self._fetch))
        batch, self._position = self._pending.popleft().result()
        return batch

    def get_state(self) -> dict[str, int]:
        """The position after the last batch delivered, not after the last one fetched ahead."""
        return self._position

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a saved position; batches fetched ahead are thrown away."""
        for future in self._pending:
            future.cancel()
        wait(self._pending)  # the one under way cannot be cancelled
        self._pending.clear()
        self._iterator.set_state(state)
        self._position = state

    def _fetch(self) -> tuple[dict[str, jax.Array], dict[str, int]]:
        batch = next(self._iterator)
        return self._put(batch), self._iterator.get_state()

    def _put(self, batch: Batch) -> dict[str, jax.Array]:
        if self._sharding is None:
            return jax.device_put(batch)
        return {
            name: jax.make_array_from_process_local_data(self._sharding, values)
            for name, values in batch.items()
        }


def to_device(
    iterator: Batches, *, sharding: jax.sharding.Sharding | None = None, ahead: int = 2
) -> Batches:
    """Moves batches to the default device, or spreads them by ``sharding``, ahead of their use.

    Where the default device is the host itself there is nowhere to move them: a compiled step reads
    numpy arrays where they lie, as fast as its own.

    Args:
        iterator: endless batches of numpy arrays.
        sharding: how the first axis lies on the devices of all processes.
        ahead: batches in flight beside the one delivered.
    """
    if sharding is None and jax.default_backend() == "cpu":
        return iterator
    return DeviceBatches(iterator, sharding, ahead)
