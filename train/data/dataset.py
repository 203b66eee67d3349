"""What the rest of the program sees of a data set: two random-access sources and their facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

Batch = dict[str, np.ndarray]


@runtime_checkable
class Source(Protocol):
    """Random access to rows; a batch is ``{"inputs": [B, ...], "targets": [B, ...]}``."""

    in_memory: ClassVar[bool]
    """Whether a gather is so quick that no thread should do it ahead."""

    def __len__(self) -> int: ...

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at ``indices`` [B] (in that order, repeats allowed) as one batch."""
        ...

    def arrays(self) -> Batch:
        """All rows as whole columns."""
        ...


class ArraySource:
    """Columns held in memory: a batch is one vectorised gather."""

    in_memory: ClassVar[bool] = True

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self.columns = {name: np.ascontiguousarray(column) for name, column in columns.items()}

    def __len__(self) -> int:
        return len(self.columns["targets"])

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at ``indices``, copied."""
        return {name: column.take(indices, axis=0) for name, column in self.columns.items()}

    def arrays(self) -> Batch:
        """The columns themselves, not copied."""
        return dict(self.columns)


class MixedSource:
    """Several sources one after another; the pipeline draws from them by ``weights``.

    One epoch has as many rows as all sources together, split among them by weight (largest
    remainder), so a weight above a source's share repeats its rows and one below leaves some for
    the next epoch: see :class:`train.data.tables.EpochOrder`.
    """

    in_memory: ClassVar[bool] = False  # its parts say it

    def __init__(self, parts: Sequence[Source], weights: Sequence[float] = ()):
        self.parts = tuple(parts)
        self.weights = tuple(weights) or tuple(float(len(part)) for part in parts)
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at ``indices`` of the concatenation of all parts."""
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        batch: Batch = {}
        for i in np.unique(owner):
            rows = np.flatnonzero(owner == i)
            for name, values in self.parts[i].gather(indices[rows] - self._starts[i]).items():
                if name not in batch:
                    batch[name] = np.empty((len(indices), *values.shape[1:]), values.dtype)
                batch[name][rows] = values
        return batch

    def arrays(self) -> Batch:
        """The concatenated columns."""
        columns = [part.arrays() for part in self.parts]
        return {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}


@dataclass(frozen=True)
class Cleaning:
    """How many rows were found and what became of them."""

    train_rows: int = 0
    """Rows of the train split as read."""
    eval_rows: int = 0
    """Rows of the eval split as read."""
    train_duplicates: int = 0
    """Train rows removed because an earlier row has the same inputs and target."""
    train_in_eval: int = 0
    """Train rows removed because the eval split holds the same inputs."""
    eval_duplicates: int = 0
    """Eval rows that repeat an earlier one: counted, never removed, or scores would not compare."""
    missing_dropped: int = 0
    """Rows of either split left out for a missing value."""
    missing_repaired: int = 0
    """Values of either split filled in."""
    malformed_dropped: int = 0
    """Rows of either split left out for an infinite value or a label out of range."""
    truncated: int = 0
    """Texts of either split that were cut to the longest that is taken."""
    unexamined: int = 0
    """Rows too large for memory: read when wanted, checked then, never compared with each other."""


@dataclass(frozen=True)
class Dataset:
    """A loaded, checked and cleaned data set."""

    name: str
    train: Source
    eval: Source
    input_shape: tuple[int, ...]
    """Shape of one input: (I, I, C) for images, (F,) for tables."""
    num_classes: int | None
    """Number of classes; None for regression."""
    class_names: tuple[str, ...]
    """One a class; empty for regression."""
    mean: np.ndarray
    """Mean of the train split per channel or feature (last axis), float32, in the raw unit."""
    std: np.ndarray
    """Standard deviation likewise; 1 where a feature never changes."""
    cleaning: Cleaning = field(default_factory=Cleaning)
