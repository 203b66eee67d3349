"""Reads prepared TFDS folders, whoever wrote them, into columns; never imports TensorFlow.

A set fits when its supervised keys name an image, a tensor of fixed shape or a dict of scalars as
inputs, and a class label, a number or a word as the target.
"""

import io
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from train.data.embedded import NAMES
from train.data.transform import resize_images
from train.errors import UserError

CHOSEN_WITH = "--data.train-split and --data.eval-split"  # a split, for most recipes

Columns = dict[str, list[Any]]
F: Any = tfds.features  # TFDS's own annotations are too loose to check against
_EXAMPLE: Any = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]  # generated


@dataclass(frozen=True)
class Prepared:
    """A prepared folder: which of its features are read."""

    folder: Path
    info: Any
    """TFDS's DatasetInfo."""
    features: dict[str, Any]
    """Key in the record -> feature."""


@dataclass(frozen=True)
class Supervised(Prepared):
    """A prepared folder with inputs and a target of fixed shape."""

    inputs: dict[str, Any]
    """One entry, or for a table several, sorted."""
    target: str


def _describe(folder: Path) -> tuple[Any, dict[str, Any]]:
    """TFDS's description of a prepared folder, and its features by their keys in a record."""
    try:
        info: Any = tfds.builder_from_directory(folder).info
        return info, _columns(info.features)
    except Exception as error:  # TFDS raises whatever its JSON and proto parsers do
        raise UserError(
            f"{folder} is damaged: TFDS cannot read its description ({_line(error)}); "
            "prepare it again"
        ) from error


def _columns(features: Any) -> dict[str, Any]:
    """Features by their keys; of a sequence of dicts, each inner one as a sequence of its own."""
    found: dict[str, Any] = {}
    for name, feature in features.items():
        if isinstance(feature, F.Sequence) and isinstance(feature.feature, F.FeaturesDict):
            inner = feature.feature.items()
            found |= {f"{name}/{key}": F.Sequence(value) for key, value in inner}
        else:
            found[name] = feature
    return found


KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda f: isinstance(f, F.Text),
    "label": lambda f: isinstance(f, F.ClassLabel),
    "series": lambda f: isinstance(f, F.Tensor) and f.shape[:1] == (None,) and len(f.shape) == 2,
    "words": lambda f: isinstance(f, F.Sequence) and isinstance(f.feature, F.Text),
    "tags": lambda f: isinstance(f, F.Sequence) and isinstance(f.feature, F.ClassLabel),
    "places": lambda f: isinstance(f, F.Sequence) and f.feature.np_dtype in (np.int32, np.int64),
}


@dataclass(frozen=True)
class Wanted:
    """One feature that a task reads, and how it is found where nobody names it."""

    kind: str
    """A key of KINDS."""
    name: str = ""
    """Its own; else the supervised key of that kind at `key`, else the only feature of the kind."""
    option: str = "column"
    """The field of the data config that names it."""
    key: int = 0
    """0 for what supervised learning reads, 1 for what it predicts."""


def open_columns(folder: Path, *wanted: Wanted) -> tuple[Prepared, list[str]]:
    """Opens a prepared TFDS folder for some of its features; gives their names too, in order.

    Raises:
        UserError: when its description is damaged, or a feature is absent or has to be named.
    """
    info, features = _describe(folder)
    names = [_find(folder, info.supervised_keys, features, want) for want in wanted]
    return Prepared(folder, info, {name: features[name] for name in names}), names


def _find(folder: Path, keys: Any, features: dict[str, Any], want: Wanted) -> str:
    # In an order of their own: features.json has none.
    fitting = sorted(name for name, feature in features.items() if KINDS[want.kind](feature))
    if not want.name and keys and keys[want.key] in fitting:
        return keys[want.key]
    if want.name in fitting or (not want.name and len(fitting) == 1):
        return want.name or fitting[0]
    wrong = f"no {want.kind} feature {want.name!r}" if want.name else f"not one {want.kind} feature"
    raise UserError(
        f"{folder} has {wrong}; it has {', '.join(fitting) or 'none'}: --data.{want.option}"
    )


def open_folder(folder: Path) -> Supervised:
    """Opens a prepared TFDS folder.

    Raises:
        UserError: when its description is damaged or its features do not fit.
    """
    info, features = _describe(folder)
    keys: Any = info.supervised_keys or (("image", "label") if "image" in features else None)
    if keys is None or not isinstance(keys[1], str):
        raise UserError(
            f"{folder} names no supervised keys, so nothing says which feature is the input and "
            f"which the target; it has {', '.join(features)}"
        )
    names = keys[0].values() if isinstance(keys[0], dict) else np.atleast_1d(keys[0]).tolist()
    inputs: dict[str, Any] = {}
    for name in names:
        inner = features[name]
        nested = isinstance(inner, F.FeaturesDict)
        inputs |= {f"{name}/{k}": f for k, f in inner.items()} if nested else {name: inner}
    inputs = dict(sorted(inputs.items()))  # features.json has no order of its own
    _check_fit(folder, inputs, keys[1], features[keys[1]])
    return Supervised(folder, info, {**inputs, keys[1]: features[keys[1]]}, inputs, keys[1])


def _check_fit(folder: Path, inputs: dict[str, Any], target: str, feature: Any) -> None:
    for name, inner in inputs.items():
        table = len(inputs) > 1
        word = isinstance(inner, F.Text)
        if table and not (isinstance(inner, F.Tensor) and inner.shape == ()):
            raise UserError(f"{folder}: input {name!r} is {inner}; a table needs scalar features")
        if not table and (word or not isinstance(inner, F.Image | F.Tensor)):
            raise UserError(
                f"{folder}: input {name!r} is {inner}; an Image or a numeric Tensor fits here"
            )
    if not isinstance(feature, F.Tensor) or feature.shape not in ((), (1,)):
        raise UserError(f"{folder}: target {target!r} is {feature}; a ClassLabel or Scalar fits")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


class RecordReader:
    """Random access to the decoded records of one split; an error names what it is chosen with."""

    def __init__(
        self,
        prepared: Prepared,
        split: str,
        resize: int | None = None,
        chosen_with: str = CHOSEN_WITH,
    ):
        self.prepared, self.split, self._resize = prepared, split, resize
        splits = prepared.info.splits
        if split.partition("[")[0] not in splits:
            raise UserError(
                f"{prepared.folder} has no split {split!r}; it has {', '.join(sorted(splits))}: "
                f"choose with {chosen_with}"
            )
        try:
            self._files = splits[split].file_instructions
        except (ValueError, AssertionError) as error:
            raise UserError(f"split {split!r} of {prepared.folder}: {_line(error)}") from error
        self._length = sum(
            file.examples_in_shard if file.take < 0 else file.take for file in self._files
        )
        self._open = _opener(prepared.info.file_format.value)

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _fetch(self) -> Callable[[list[int]], Sequence[bytes]]:
        return self._open(self._files)  # late, so that `read` reports what opening finds

    @property
    def where(self) -> str:
        """How messages name this split."""
        return f"split {self.split!r} of {self.prepared.folder}"

    def read(self, rows: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """The rows as one array a feature.

        Raises:
            UserError: when a record is damaged or has another shape than the first.
        """
        wanted = self.prepared.features
        columns: Columns = {name: [] for name in wanted}
        try:
            for record in self._fetch([int(row) for row in rows]):
                values = _EXAMPLE.FromString(record).features.feature
                for name, column in columns.items():
                    column.append(_value(values[name]))
            return {
                name: _decode(name, feature, columns[name], self._resize)
                for name, feature in wanted.items()
            }
        except ImportError as error:
            raise UserError(
                f"{self.where} has a feature that TFDS decodes only with {error.name} installed"
            ) from error
        except UserError as error:
            raise UserError(f"{self.where}: {error}") from error
        except Exception as error:  # array_record, protobuf, zlib and PIL each have their own
            folder = self.prepared.folder
            embedded = folder.parent.name in NAMES
            again = "the next run writes it again" if embedded else "prepare it again"
            raise UserError(
                f"{self.where} is corrupt ({_line(error)}): delete {folder}, then {again}"
            ) from error


def _opener(file_format: str) -> Callable[[Sequence[Any]], Callable[[list[int]], Sequence[bytes]]]:
    if file_format == "array_record":
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return lambda files: ArrayRecordDataSource(files).__getitems__
    if file_format == "tfrecord":
        return lambda files: _TFRecords(files).__getitems__
    raise UserError(
        f"TFDS sets in {file_format} files cannot be read here: prepare the set with "
        "file_format='array_record'"
    )


class _TFRecords:
    """TFRecord files, TFDS's default format: length, checksum, record, checksum, and again.

    The checksums are CRC-32C, too slow without a compiled library, and are not looked at: a damaged
    record is found when it does not parse. array_record files check themselves.
    """

    def __init__(self, files: Sequence[Any]):
        self._places: list[tuple[str, int, int]] = []
        for file in files:
            name, places, size = str(file.filename), [], Path(file.filename).stat().st_size
            with open(name, "rb") as stream:
                while stream.tell() < size:
                    length = struct.unpack("<Q", stream.read(12)[:8])[0]
                    places.append((name, stream.tell(), length))
                    stream.seek(length + 4, io.SEEK_CUR)
            end = None if file.take < 0 else file.skip + file.take
            self._places += places[file.skip : end]

    def __getitems__(self, rows: list[int]) -> list[bytes]:
        records = []
        for row in rows:
            name, offset, length = self._places[row]
            with open(name, "rb") as stream:
                stream.seek(offset)
                records.append(stream.read(length))
        return records


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None:
        raise ValueError("a record lacks a feature")
    return getattr(value, kind).value


def _decode(name: str, feature: Any, values: list[Any], resize: int | None) -> np.ndarray:
    """One column [R, ...] from the raw values of R records."""
    if isinstance(feature, F.Image):
        parts = [_image(feature, value[0]) for value in values]
        if resize is not None:
            parts = [resize_images(part[None], resize)[0] for part in parts]
        shape = parts[0].shape if parts else tuple(side or resize or 0 for side in feature.shape)
    elif feature.shape[:1] == (None,):
        return _ragged(name, feature, values)
    elif feature.np_dtype in (np.object_, np.str_):
        return np.array([_text(name, value[0]) for value in values], np.object_)
    elif values and isinstance(values[0][0], bytes):  # Tensor(encoding="bytes" or "zlib")
        shape = feature.shape
        parts = [feature.decode_example_np(value[0]) for value in values]
    else:
        shape = feature.shape
        parts = [np.array(value, feature.np_dtype) for value in values]
        parts = [part.reshape(shape) if part.size == math.prod(shape) else part for part in parts]
    for i, part in enumerate(parts):
        if part.shape != shape:
            raise UserError(
                f"feature {name!r} has shape {part.shape} in one record and {shape} in others "
                f"(record {i} of those read); "
                + ("set --data.resize" if part.ndim == 3 else "all must agree")
            )
    return np.stack(parts) if parts else np.zeros((0, *shape), feature.np_dtype)


def _ragged(name: str, feature: Any, values: list[Any]) -> np.ndarray:
    """Rows of unequal length [R]: each an array of its own, or a list of texts."""
    column = np.empty(len(values), np.object_)
    for i, value in enumerate(values):
        if feature.np_dtype in (np.object_, np.str_):
            column[i] = [_text(name, content) for content in value]
        else:
            column[i] = np.array(value, feature.np_dtype).reshape(-1, *feature.shape[1:])
    return column


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"feature {name!r} holds text that is not UTF-8 (byte {content[error.start]:#04x} in "
            f"{content[max(error.start - 12, 0) : error.end + 12]!r}); convert it to UTF-8"
        ) from error


_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def _image(feature: Any, content: bytes) -> np.ndarray:
    if feature.np_dtype != np.uint8:
        return feature.decode_example_np(content)
    mode = _MODES[feature.shape[-1] or 3]  # an unknown number of channels means "as in the file"
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None]
