"""The two splits of a set of sequences or texts: read, checked, cleaned, counted."""

from collections.abc import Callable, Sequence

import numpy as np

from train.data import clean, records
from train.data.config import (
    AnsweredTextConfig,
    DataConfig,
    LabelledTextConfig,
    PairedTextConfig,
)
from train.data.dataset import Batch, Cleaning
from train.errors import UserError

Counts = dict[str, int]  # fields of `Cleaning`


def read_splits(
    prepared: records.Prepared,
    config: DataConfig | LabelledTextConfig | PairedTextConfig | AnsweredTextConfig,
    check: Callable[[Batch, str, Counts], Batch],
    rows: str,
) -> tuple[Batch, Batch, Counts]:
    """The columns of the train and of the eval split, and what became of their rows.

    Args:
        prepared: the set.
        config: names its splits.
        check: makes of the columns as read those of the rows that can be used, among them
            ``inputs`` and ``targets``, by which rows are compared; it is told how messages name the
            split, and counts what it leaves out.
        rows: what the rows are called.

    Raises:
        UserError: a split has no rows, or none is left.
    """
    count = dict.fromkeys(Cleaning.__dataclass_fields__, 0)
    parts: list[Batch] = []
    for kind, split in (("train", config.train_split), ("eval", config.eval_split)):
        reader = records.RecordReader(prepared, split)
        if not len(reader):
            raise UserError(f"{reader.where} has no rows; at least one is needed")
        count[f"{kind}_rows"] = len(reader)
        parts.append(check(reader.read(range(len(reader))), reader.where, count))
    train, held_out = parts
    if config.deduplicate:
        train, held_out = clean.without_repeats(train, held_out, count)
    for split, part in ((config.train_split, train), (config.eval_split, held_out)):
        if not len(part["targets"]):
            raise UserError(f"split {split!r} of {prepared.folder} has no {rows} left to use")
    return train, held_out, count


def as_bytes(texts: Sequence[str] | np.ndarray) -> np.ndarray:
    """Texts as a column whose rows can be compared bit for bit."""
    column = np.empty(len(texts), np.object_)
    for i, text in enumerate(texts):
        column[i] = np.frombuffer(text.encode(), np.uint8)
    return column


def drop_empty(columns: Batch, some: Sequence[bool], count: Counts) -> Batch:
    """The rows that are not empty; the others are counted as missing."""
    kept = np.array(some, bool)
    count["missing_dropped"] += int((~kept).sum())
    return {name: values[kept] for name, values in columns.items()}
