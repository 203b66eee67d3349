"""Data: embedded and prepared TFDS sets, cleaned, checked, shuffled, batched, put on the device.

``load(DataConfig(...))`` gives a :class:`Dataset`; ``train_batches`` and ``eval_batches`` turn its
sources into batches of numpy arrays and ``to_device`` moves them ahead of the step that wants them;
``train.data.augment`` is the part that runs on the device.
Everything but the configuration is imported on first use: TFDS, grain and JAX take seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from train.data.config import (
    AnsweredTextConfig,
    AugmentConfig,
    DataConfig,
    LabelledTextConfig,
    PairedTextConfig,
    TaggedTextConfig,
    TextConfig,
    WordsConfig,
)

if TYPE_CHECKING:
    from train.data.dataset import Dataset, Source
    from train.data.loading import load
    from train.data.pipeline import Batches, eval_batches, to_device, train_batches

_HOME = {
    "Batches": "pipeline",
    "Dataset": "dataset",
    "Source": "dataset",
    "load": "loading",
    "eval_batches": "pipeline",
    "to_device": "pipeline",
    "train_batches": "pipeline",
}

__all__ = [
    "AnsweredTextConfig",
    "AugmentConfig",
    "Batches",
    "DataConfig",
    "Dataset",
    "LabelledTextConfig",
    "PairedTextConfig",
    "Source",
    "TaggedTextConfig",
    "TextConfig",
    "WordsConfig",
    "eval_batches",
    "load",
    "to_device",
    "train_batches",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"train.data.{_HOME[name]}"), name)
    globals()[name] = value
    return value
