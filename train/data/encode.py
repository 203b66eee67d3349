"""From decoded record columns to ``inputs`` and ``targets``, the same way for every split."""

from typing import Any, ClassVar

import numpy as np

from train.data import clean, transform
from train.data.dataset import Batch
from train.data.records import F, RecordReader, Supervised
from train.errors import UserError


class Encoder:
    """Raw record columns to ``inputs`` and ``targets``; words become codes of the train split's."""

    def __init__(self, prepared: Supervised, train: dict[str, np.ndarray], resize: int | None):
        self._prepared, self._resize = prepared, resize
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
        if self._resize is not None:
            if inputs.ndim != 4:
                raise UserError(
                    f"{self._prepared.folder}: inputs of shape {inputs.shape[1:]} are no images, "
                    f"so --data.resize {self._resize} does not apply"
                )
            inputs = transform.resize_images(inputs, self._resize)
        targets = raw[self._prepared.target].reshape(len(inputs))
        if self.num_classes is None:
            return {"inputs": inputs, "targets": _numeric(targets).astype(np.float32)}
        return {"inputs": inputs, "targets": np.nan_to_num(targets, nan=-1).astype(np.int64)}

    def finish(self, columns: Batch) -> Batch:
        """Checked and repaired columns as batches have them: one-hot categories, int32 labels."""
        inputs, targets = columns["inputs"], columns["targets"]
        if self.categories:
            inputs = transform.expand_categories(inputs, self.categories)
        return {
            "inputs": inputs,
            "targets": targets.astype(np.int32 if self.num_classes else np.float32),
        }


def _class_names(prepared: Supervised, target: Any, words: Any) -> tuple[str, ...]:
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


class RecordSource:
    """A split too large for memory: records are read, decoded and checked when wanted."""

    in_memory: ClassVar[bool] = False

    def __init__(self, reader: RecordReader, encoder: Encoder):
        self._reader, self._encoder = reader, encoder

    def __len__(self) -> int:
        return len(self._reader)

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at ``indices``, decoded.

        Raises:
            UserError: when one is damaged, has a missing value or a label out of range.
        """
        columns = self._encoder(self._reader.read(indices))
        where = f"{self._reader.where}, too large to be cleaned in memory"
        clean.treat_faults(columns, self._encoder.num_classes, "error", where, indices)
        return self._encoder.finish(columns)

    def arrays(self) -> Batch:
        """All rows, in as much memory as they take."""
        return self.gather(np.arange(len(self)))
