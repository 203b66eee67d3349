"""``load``: from a configuration to a checked, cleaned, transformed data set."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from train.data import clean, records, transform
from train.data.config import TFDS_PREFIX, DataConfig
from train.data.dataset import ArraySource, Batch, Cleaning, Dataset, MixedSource, Source
from train.data.prepare import folder_of
from train.errors import UserError

F = records.F
IN_MEMORY_BYTES = 1 << 30  # larger splits are read record by record when wanted
SAMPLE_ROWS = 4096  # of such a split, for its statistics


def load(config: DataConfig) -> Dataset:
    """Loads, checks and cleans the data that ``config`` names; embedded sets prepare themselves.

    Raises:
        UserError: one line that says what is wrong with the configuration or the data.
    """
    if config.data_dir is not None and len(config.names) > 1 and _is_one_set(config):
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
        num_classes=first.num_classes,
        class_names=first.class_names,
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
    num_classes: int | None
    class_names: tuple[str, ...]
    categories: dict[int, tuple[str, ...]]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.train.gather(np.zeros(1, np.int64))["inputs"].shape[1:]


class RecordSource:
    """A split too large for memory: records are read, decoded and checked when wanted."""

    def __init__(self, reader: records.RecordReader, encoder: "_Encoder"):
        self._reader, self._encoder = reader, encoder

    def __len__(self) -> int:
        return len(self._reader)

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at ``indices``, decoded.

        Raises:
            UserError: when one is damaged, has a missing value or a label out of range.
        """
        columns = self._encoder(self._reader.read(indices))
        clean.treat_faults(columns, self._encoder.num_classes, "error", self._reader.where)
        return _final(columns)

    def arrays(self) -> Batch:
        """All rows, in as much memory as they take."""
        return self.gather(np.arange(len(self)))


class _Encoder:
    """Raw record columns to ``inputs`` and ``targets``; words become codes of the train split's."""

    def __init__(self, prepared: records.Prepared, train: dict[str, np.ndarray]):
        self._prepared = prepared
        self._words = {
            name: transform.category_codes(column)[1]
            for name, column in train.items()
            if column.dtype == object
        }
        target = prepared.features[prepared.target]
        self.class_names = _class_names(prepared, target, self._words.get(prepared.target))
        self.num_classes = len(self.class_names) or None
        names = list(prepared.inputs)
        self.categories = {names.index(k): v for k, v in self._words.items() if k in names}
        for name, feature in prepared.inputs.items():
            if len(names) > 1 and isinstance(feature, F.ClassLabel):
                self.categories[names.index(name)] = tuple(feature.names)

    def __call__(self, raw: dict[str, np.ndarray]) -> Batch:
        """Labels stay int64 until they have been checked, or 2**32 would become 0."""
        for name, words in self._words.items():
            raw[name] = transform.category_codes(raw[name], words)[0]
        columns = [_numeric(raw[name]) for name in self._prepared.inputs]
        inputs = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
        if inputs.ndim == 1 or (inputs.ndim == 3 and inputs.dtype == np.uint8):
            inputs = inputs[..., None]  # one feature; grey images stored without a channel
        targets = raw[self._prepared.target].reshape(len(inputs))
        if self.num_classes is None:
            return {"inputs": inputs, "targets": _numeric(targets).astype(np.float32)}
        return {"inputs": inputs, "targets": np.nan_to_num(targets, nan=-1).astype(np.int64)}


def _class_names(prepared: records.Prepared, target: Any, words: Any) -> tuple[str, ...]:
    if isinstance(target, F.ClassLabel):
        if not target.num_classes:
            raise UserError(
                f"{prepared.folder}: target {prepared.target!r} is a ClassLabel that does not say "
                "how many classes there are; prepare the set with num_classes or names"
            )
        return tuple(target.names)
    if words is not None:
        return tuple(words)
    return ("False", "True") if target.np_dtype == np.bool_ else ()


def _numeric(column: np.ndarray) -> np.ndarray:
    if column.dtype == np.uint8 and column.ndim > 2:  # images; the device converts them
        return column
    with np.errstate(over="ignore"):  # becomes infinite, which the checks report
        return column.astype(np.float32)


def _final(columns: Batch) -> Batch:
    targets = columns["targets"]
    return {**columns, "targets": targets.astype(np.int32 if targets.dtype == int else np.float32)}


def _is_one_set(config: DataConfig) -> bool:
    assert config.data_dir is not None
    return (config.data_dir / "dataset_info.json").is_file()


def _read(name: str, config: DataConfig) -> _Part:
    prepared = records.open_folder(folder_of(name, config.data_dir))
    readers = [
        records.RecordReader(prepared, split, config.resize)
        for split in (config.train_split, config.eval_split)
    ]
    for reader in readers:
        if not len(reader):
            raise UserError(f"{reader.where} has no rows; at least one is needed")
    given = config.data_dir is not None and not name.startswith(TFDS_PREFIX)
    name = str(prepared.info.name) if given else name
    if max(_decoded_bytes(reader, config.resize) for reader in readers) > IN_MEMORY_BYTES:
        encoder = _Encoder(prepared, readers[0].read([0]))
        sources: list[Source] = [RecordSource(reader, encoder) for reader in readers]
    else:
        raw = [reader.read(range(len(reader))) for reader in readers]
        encoder = _Encoder(prepared, raw[0])
        sources = [ArraySource(_resized(encoder(columns), config.resize)) for columns in raw]
    return _Part(
        name,
        str(prepared.folder),
        sources[0],
        sources[1],
        encoder.num_classes,
        encoder.class_names,
        encoder.categories,
    )


def _decoded_bytes(reader: records.RecordReader, resize: int | None) -> int:
    total = 0
    for feature in reader.prepared.features.values():
        sides = [resize or side or 512 for side in feature.shape[:2]]  # 512: a photo of any size
        itemsize = np.dtype(feature.np_dtype).itemsize
        total += int(np.prod([*sides, *(side or 3 for side in feature.shape[2:])])) * itemsize
    return total * len(reader)


def _resized(columns: Batch, resize: int | None) -> Batch:
    inputs = columns["inputs"]
    if resize is None:
        return columns
    if inputs.ndim != 4:
        raise UserError(f"--data.resize {resize}: inputs of shape {inputs.shape[1:]} are no images")
    return {**columns, "inputs": transform.resize_images(inputs, resize)}


def _check_agreement(first: _Part, other: _Part) -> None:
    a, b = ({"inputs": part.input_shape, "classes": part.class_names} for part in (first, other))
    for what, hint in (("classes", ""), ("inputs", "; images can be made equal by --data.resize")):
        if a[what] != b[what]:
            raise UserError(
                f"{first.name} and {other.name} cannot be joined: {what} {_brief(a[what])} and "
                f"{_brief(b[what])} must agree{hint}"
            )
    if first.categories != other.categories:
        raise UserError(
            f"{first.name} and {other.name} cannot be joined: their categories must agree"
        )


def _brief(value: tuple[Any, ...]) -> str:
    return str(value) if len(value) <= 4 else f"({value[0]!r}, ... {len(value)} of them)"


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
                source.arrays(), part.num_classes, config.missing, where
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
                train["inputs"], [held_out["inputs"]], list(part.categories), part.where
            )
        part.train, part.eval = (_finished(kept, part) for kept in (train, held_out))
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


def _finished(columns: Batch, part: _Part) -> ArraySource:
    if part.categories:
        inputs = transform.expand_categories(columns["inputs"], part.categories)
        columns = {**columns, "inputs": inputs}
    return ArraySource(_final(columns))


def _sample(source: Source) -> np.ndarray:
    """All inputs of a source in memory, else a fixed random sample of them."""
    if isinstance(source, ArraySource):
        return source.columns["inputs"]
    draw = np.random.Philox(key=0).random_raw(min(SAMPLE_ROWS, len(source)))
    return source.gather(np.sort(draw % len(source)).astype(np.int64))["inputs"]
