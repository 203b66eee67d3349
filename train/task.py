"""The contract between what is learnt and the loop that drives it.

A task owns its whole step: it builds the objects (one model or several, one optimiser or several),
and says what a training step, an evaluation step and a summary are. The loop knows nothing else.
"""

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

import zoo
from train.config import Recipe
from train.data import Dataset
from train.errors import UserError
from train.gradient import Batch, Metrics, Sync
from train.report import Section
from train.step import Objects

Outputs = dict[str, np.ndarray]  # evaluation outputs of every example, in the order of the split


@dataclass(frozen=True)
class Baseline:
    """What the model must be compared with, computed in the same run on the same split."""

    name: str
    value: float


class Task(abc.ABC):
    """One kind of learning problem, in plain NNX code; the loop compiles its steps."""

    summary_metric: ClassVar[
        str
    ]  # shown beside the loss while training: a key of train_step's metrics

    def __init__(self, recipe: Recipe, data: Dataset, ops: zoo.Ops):
        self.recipe, self.data, self.ops = recipe, data, ops

    @abc.abstractmethod
    def build(self, rngs: nnx.Rngs) -> Objects:
        """The objects of the task: models, optimisers, statistics, random streams."""

    @abc.abstractmethod
    def train_step(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        """One update in place; scalar metrics named ``train/...``, averaged through ``sync``."""

    @abc.abstractmethod
    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        """Outputs with one row an example; changes nothing."""

    @abc.abstractmethod
    def summarise(self, outputs: Outputs) -> dict[str, float]:
        """The metrics of a whole split from its outputs, without the ``eval/`` prefix."""

    @abc.abstractmethod
    def baseline(self, folder: Path) -> Baseline | None:
        """The named baseline on the same data; ``folder`` is for what it writes, if anything.

        None where the config asks for none.
        """

    @abc.abstractmethod
    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        """The figures of this task for the report."""

    @abc.abstractmethod
    def predict(self, objects: Objects, inputs: jax.Array) -> dict[str, jax.Array]:
        """What a served or exported model answers to raw inputs; changes nothing."""

    def sample(self, objects: Objects, num: int, out: Path | None) -> list[dict[str, Any]]:
        """Shows the trained model at work: ``num`` samples as rows, drawn to ``out`` if given.

        Raises:
          UserError: the task has nothing to sample, or not so many, or nothing to draw.
        """
        raise UserError(f"recipe {self.recipe.name!r} has nothing to sample; try `eval`")
