"""``load``: from a configuration to a checked, cleaned, transformed data set."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.data import clean, records, transform
from train.data.config import TFDS_PREFIX, DataConfig
from train.data.dataset import ArraySource, Batch, Cleaning, Dataset, MixedSource, Source
from train.data.encode import Encoder, RecordSource
from train.data.prepare import INFO, folder_of
from train.errors import UserError

IN_MEMORY_BYTES = 1 << 30  # larger splits are read record by record when wanted
SAMPLE_ROWS = 4096  # of such a split, for its statistics


def load(config: DataConfig) -> Dataset:
    """Loads, checks and cleans the data that ``config`` names; embedded sets prepare themselves.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    if config.data_dir is not None and config.names[1:] and (config.data_dir / INFO).is_file():
        raise UserError(
            f"{config.data_dir} is one prepared set, but {config.name!r} names several: give the "
            "folder that holds them all"
        )
    parts = [_read(name, config) for name in config.names]
    for part in parts[1:]:
        _check_agreement(parts[0], part)
    cleaning = _clean(parts, config)
    train = [part.train for part in parts]
    mean, std = transform.moments(
        np.concatenate([_sample(source) for source in train]) if train[1:] else _sample(train[0])
    )
    first = parts[0]
    mixed = len(parts) > 1
    return Dataset(
        name="+".join(part.name for part in parts),
        train=MixedSource(train, config.weights) if mixed else train[0],
        eval=MixedSource([part.eval for part in parts]) if mixed else first.eval,
        input_shape=first.input_shape,
        num_classes=first.encoder.num_classes,
        class_names=first.encoder.class_names,
        mean=mean,
        std=std,
        cleaning=cleaning,
    )


@dataclass
class _Part:
    """One of the configured sources while it is being loaded."""

    name: str
    where: str
    train: Source
    eval: Source
    encoder: Encoder

    @property
    def input_shape(self) -> tuple[int, ...]:
        return _first_input(self.train).shape


def _first_input(source: Source) -> np.ndarray:
    return source.gather(np.zeros(1, np.int64))["inputs"][0]


def _read(name: str, config: DataConfig) -> _Part:
    prepared = records.open_folder(folder_of(name, config.data_dir))
    readers = [
        records.RecordReader(prepared, split, config.resize)
        for split in (config.train_split, config.eval_split)
    ]
    for reader in readers:
        if not len(reader):
            raise UserError(f"{reader.where} has no rows; at least one is needed")
    held = str(prepared.info.name)
    if not name.startswith(TFDS_PREFIX):
        name = held  # --data-dir of one prepared set wins over a recipe's own
    elif re.split("[:/]", name.removeprefix(TFDS_PREFIX))[0] != held:
        raise UserError(f"{prepared.folder} holds {held!r}, not {name!r}; leave one of the two out")
    if max(_decoded_bytes(reader, config.resize) for reader in readers) > IN_MEMORY_BYTES:
        encoder = Encoder(prepared, readers[0].read([0]), config.resize)
        sources: list[Source] = [RecordSource(reader, encoder) for reader in readers]
    else:
        raw = [reader.read(range(len(reader))) for reader in readers]
        encoder = Encoder(prepared, raw[0], config.resize)
        sources = [ArraySource(encoder(columns)) for columns in raw]
    part = _Part(name, str(prepared.folder), sources[0], sources[1], encoder)
    shape = _first_input(part.eval).shape
    if shape != part.input_shape:
        raise UserError(
            f"{prepared.folder}: inputs have shape {part.input_shape} in split "
            f"{config.train_split!r} and {shape} in {config.eval_split!r}; set --data.resize"
        )
    return part


def _decoded_bytes(reader: records.RecordReader, resize: int | None) -> int:
    total = 0
    for feature in reader.prepared.features.values():
        sides = [resize or side or 512 for side in feature.shape[:2]]  # 512: a photo of any size
        itemsize = np.dtype(feature.np_dtype).itemsize
        total += int(np.prod([*sides, *(side or 3 for side in feature.shape[2:])])) * itemsize
    return total * len(reader)


def _check_agreement(first: _Part, other: _Part) -> None:
    facts = [
        {
            "class names": part.encoder.class_names,
            "input shapes": part.input_shape,
            "input types": str(_first_input(part.train).dtype),
            "categories": part.encoder.categories,
        }
        for part in (first, other)
    ]
    for what, expected in facts[0].items():
        if facts[1][what] != expected:
            hint = "; --data.resize makes images equal" if what == "input shapes" else ""
            raise UserError(
                f"{first.name} and {other.name} cannot be joined: their {what} must agree, they "
                f"are {_brief(expected)} and {_brief(facts[1][what])}{hint}"
            )


def _brief(value: Any) -> str:
    if not isinstance(value, tuple) or len(value) <= 4:
        return str(value)
    return f"({value[0]!r}, ... {len(value)} of them)"


def _clean(parts: list[_Part], config: DataConfig) -> Cleaning:
    """Replaces the in-memory sources of ``parts`` by clean ones, and counts."""
    count = dict.fromkeys(Cleaning.__dataclass_fields__, 0)
    columns: dict[tuple[int, str], Batch] = {}
    for i, part in enumerate(parts):
        for split, source in (("train", part.train), ("eval", part.eval)):
            count[f"{split}_rows"] += len(source)
            if not isinstance(source, ArraySource):
                count["unexamined"] += len(source)
                continue
            where = f"{split} rows of {part.where}"
            kept, missing, malformed = clean.treat_faults(
                source.arrays(), part.encoder.num_classes, config.missing, where
            )
            count["missing_dropped"] += missing
            count["malformed_dropped"] += malformed
            columns[i, split] = kept
    if config.deduplicate:
        _deduplicate(columns, count)
    for i, part in enumerate(parts):
        if (i, "train") not in columns:
            continue
        train, held_out = columns[i, "train"], columns[i, "eval"]
        for split, kept in (("train", train), ("eval", held_out)):
            if not len(kept["targets"]):
                raise UserError(
                    f"{split} rows of {part.where}: none is left after cleaning "
                    f"({_counts(count)}); see --data.missing and --data.deduplicate"
                )
        if config.missing == "repair" and train["inputs"].dtype.kind == "f":
            count["missing_repaired"] += clean.repair(
                train["inputs"], [held_out["inputs"]], list(part.encoder.categories), part.where
            )
        part.train = ArraySource(part.encoder.finish(train))
        part.eval = ArraySource(part.encoder.finish(held_out))
    return Cleaning(**count)


def _deduplicate(columns: dict[tuple[int, str], Batch], count: dict[str, int]) -> None:
    held_out: set[bytes] = set()
    for (_, split), kept in columns.items():
        if split == "eval":
            digests = clean.row_digests(kept, ["inputs"])
            count["eval_duplicates"] += len(digests) - len(set(digests) - held_out)
            held_out.update(digests)
    seen: set[bytes] = set()
    for key, kept in columns.items():
        if key[1] == "train":
            columns[key], repeated, leaked = clean.fresh_rows(kept, held_out, seen)
            count["train_duplicates"] += repeated
            count["train_in_eval"] += leaked


def _counts(count: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in count.items() if value)


def _sample(source: Source) -> np.ndarray:
    """All inputs of a source in memory, else a fixed random sample of them."""
    if isinstance(source, ArraySource):
        return source.columns["inputs"]
    draw = np.random.Philox(key=0).random_raw(min(SAMPLE_ROWS, len(source)))
    return source.gather(np.sort(draw % len(source)).astype(np.int64))["inputs"]
