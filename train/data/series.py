"""Series of numbers of unequal length, each with a class: read, checked, cleaned."""

import numpy as np

from train.data import clean, records, transform
from train.data.config import DataConfig
from train.data.dataset import Batch, Cleaning, Dataset
from train.data.prepare import folder_of
from train.data.sequences import Ragged, SequenceSource
from train.data.splits import Counts, read_splits
from train.errors import UserError


def load_series(config: DataConfig) -> Dataset:
    """Loads a set whose inputs are series [T, C] and whose targets are class labels.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    _check(config)
    prepared, (series, label) = records.open_columns(
        folder_of(config.name, config.data_dir),
        records.Wanted("series"),
        records.Wanted("label", key=1),
    )
    names = tuple(prepared.features[label].names)

    def check(raw: Batch, where: str, count: Counts) -> Batch:
        columns = {"inputs": raw[series], "targets": raw[label].astype(np.int64)}
        columns, missing, malformed = clean.treat_faults(columns, len(names), config.missing, where)
        count["missing_dropped"] += missing
        count["malformed_dropped"] += malformed
        return columns

    train, held_out, count = read_splits(prepared, config, check, "series")
    mean, std = transform.moments(np.concatenate(train["inputs"]))
    source = _source(train)
    return Dataset(
        name=config.name,
        train=source,
        eval=_source(held_out),
        input_shape=(source.longest["inputs"], len(mean)),
        num_classes=len(names),
        class_names=names,
        mean=mean,
        std=std,
        cleaning=Cleaning(**count),
    )


def _check(config: DataConfig) -> None:
    if len(config.names) > 1 or config.resize is not None or config.missing == "repair":
        raise UserError(
            f"{config.name}: series are read from one set, have no size to change and are not "
            "repaired; leave out the +, --data.resize and --data.missing repair"
        )


def _source(columns: Batch) -> SequenceSource:
    return SequenceSource(
        {
            "inputs": Ragged(list(columns["inputs"])),
            "targets": columns["targets"].astype(np.int32),
        }
    )
