"""Classification of series of numbers of unequal length."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
from flax import nnx

from train import baselines
from train.config import Recipe
from train.data import AugmentConfig
from train.data.dataset import Dataset
from train.data.series import load_series
from train.step import Objects
from train.task import Baseline
from train.tasks.classification import Classification, ClassifierConfig


@dataclass(frozen=True, kw_only=True)
class SequenceClassificationConfig(ClassifierConfig):
    """What a classifier of series is compared with."""

    baseline: Literal["none", "nearest-series"] = "nearest-series"  # what it must beat


class SequenceClassification(Classification):
    """A softmax over the classes, from all steps of a series; its padding changes nothing."""

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> Dataset:
        return load_series(recipe.data)

    @property
    def has_images(self) -> bool:
        return False

    @property
    def augmentation(self) -> AugmentConfig:
        return AugmentConfig()  # images only have one

    def query(self, batch: Any) -> Any:
        return {name: batch[name] for name in ("inputs", "inputs_lengths")}

    def standardized(self, objects: Objects, query: Any) -> Any:
        if not isinstance(query, dict):
            return super().standardized(objects, query)
        return {**query, "inputs": self.standardized(objects, query["inputs"])}

    def answer(self, model: Any, query: Any, rngs: nnx.Rngs | None = None) -> jax.Array:
        return model(query["inputs"], lengths=query["inputs_lengths"], rngs=rngs)

    def baseline(self, folder: Path) -> Baseline | None:
        if self.recipe.task.baseline == "none":
            return None
        return baselines.nearest_series(self.data)
