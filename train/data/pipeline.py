"""From a source to batches on the device: background threads, prefetching, the position.

Which rows a batch has, and in which order, :mod:`train.data.tables` says.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np

from train.data.dataset import ArraySource, Batch, MixedSource, Source
from train.data.sequences import SequenceSource
from train.data.tables import AllRows, BucketTable, EpochOrder, EvalTable, TrainTable
from train.errors import UserError


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


class TrainBatches:
    """Endless shuffled batches; those of records are made ahead in background threads by grain."""

    def __init__(self, source: Source, batch_size: int, seed: int, positions: np.ndarray):
        self._identity = {"batch_size": batch_size, "seed": seed, "num_rows": len(source)}
        self.padding: float | None = None
        """The share of padding in batches of sequences."""
        self._source, self._num_rows = source, len(positions)
        self._buckets: BucketTable | None = None
        if isinstance(source, SequenceSource):
            self._buckets = BucketTable(source, batch_size, seed, positions)
            self.padding, self._iterator = self._buckets.padding, _InMemory(self._buckets)
        elif batch_size == len(source) and isinstance(source, ArraySource):
            self._iterator = _InMemory(AllRows(source, positions))
        else:
            table = TrainTable(source, EpochOrder(source, seed), batch_size, positions)
            self._iterator = _InMemory(table) if _is_in_memory(source) else _read_ahead(table)

    def examples(self) -> list[Batch]:
        """One batch of each shape that will come, for compiling."""
        if self._buckets is not None:
            return self._buckets.examples()
        return [self._source.gather(np.zeros(self._num_rows, np.int64))]

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
    source: Source, *, batch_size: int, seed: int, positions: np.ndarray | None = None
) -> TrainBatches:
    """Endless batches of ``source``, shuffled anew each epoch.

    Args:
        source: where rows come from.
        batch_size: rows of one step, over all processes.
        seed: decides the order of rows, nothing else does.
        positions: which rows of every batch are read, in rising order; all by default.

    Raises:
        UserError: when the batch is empty or larger than the source.
    """
    positions = _checked(batch_size, positions)
    if not 0 <= seed < 2**64:
        raise UserError(f"seed={seed} must lie in 0 .. 2**64 - 1")
    if batch_size > len(source):
        raise UserError(
            f"batch size {batch_size} is larger than the train split of {len(source)} rows: "
            f"use at most {len(source)}"
        )
    return TrainBatches(source, batch_size, seed, positions)


def eval_batches(
    source: Source, *, batch_size: int, positions: np.ndarray | None = None
) -> Iterator[Batch]:
    """One pass over ``source`` in order; ``mask`` [B] is False on the last batch's padding rows.

    Args:
        source: where rows come from.
        batch_size: rows of one batch, over all processes.
        positions: which rows of every batch are read, in rising order; all by default.

    Raises:
        UserError: when the batch is empty.
    """
    table = EvalTable(source, batch_size, _checked(batch_size, positions))
    return (table[i] for i in range(len(table))) if _is_in_memory(source) else _read_ahead(table)


class _InMemory:
    """Reads a table on the thread that asks, some batches at once.

    A thread's hand-over of a batch would take longer than its gather; and in a training loop, where
    each step leaves the caches cold, one gather of many batches costs hardly more than one of one.
    """

    def __init__(self, table: TrainTable | BucketTable | AllRows):
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


def _read_ahead(table: TrainTable | EvalTable) -> grain.DatasetIterator:
    """An iterator over the table with ``get_state`` and ``set_state``, its reads made ahead."""
    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(grain.MapDataset.source(table).to_iter_dataset(options))


def _checked(batch_size: int, positions: np.ndarray | None) -> np.ndarray:
    if batch_size < 1:
        raise UserError(f"batch size {batch_size} must be at least 1")
    return np.arange(batch_size) if positions is None else positions


class DeviceBatches:
    """Keeps ``ahead`` batches on their way to the device while the step before them runs.

    A thread of its own fetches and transfers, since one transfer costs the host about 0.2 ms.
    """

    def __init__(self, iterator: Batches, put: Callable[[Batch], Any], ahead: int):
        self._iterator, self._put, self._ahead = iterator, put, ahead
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


def to_device(
    iterator: Batches, *, put: Callable[[Batch], Any] | None = None, ahead: int = 2
) -> Batches:
    """Moves batches to the default device, or to where ``put`` puts them, ahead of their use.

    Where the default device is the host itself there is nowhere to move them: a compiled step reads
    numpy arrays where they lie, as fast as its own.

    Args:
        iterator: endless batches of numpy arrays.
        put: moves one batch to several devices.
        ahead: batches in flight beside the one delivered.
    """
    if put is None and jax.default_backend() == "cpu":
        return iterator
    return DeviceBatches(iterator, put or jax.device_put, ahead)
