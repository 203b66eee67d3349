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
from train.data import load
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.report import Section
from train.step import Objects
from train.sync import Sync

Outputs = dict[str, np.ndarray]  # evaluation outputs of every example, in the order of the split


@dataclass(frozen=True)
class Baseline:
    """What the model must be compared with, computed in the same run on the same split."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What is asked of a trained model; what a task has no use for must be left out."""

    num: int | None = None
    """How many samples (16 where there are many to choose from, 1 text)."""
    out: Path | None = None
    """Where to draw them (.png, .svg or .pdf)."""
    label: int | None = None
    """The class of what a conditional generator draws."""
    prompt: str | None = None
    """The text that a language model goes on from."""
    length: int = 300
    """How many tokens a language model writes."""
    temperature: float = 0.8
    """Divides the logits before a token is drawn: 1 is the model's own distribution, 0 the best."""
    top_k: int | None = None
    """Draw among the so many likeliest tokens only."""
    top_p: float | None = None
    """Draw among the likeliest tokens that together have this probability."""
    seed: int = 0
    """Of all draws."""

    def __post_init__(self):
        for name in ("num", "length", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be 0 or more, and finite")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1]")


class Task(abc.ABC):
    """One kind of learning problem, in plain NNX code; the loop compiles its steps."""

    summary_metric: ClassVar[
        str
    ]  # shown beside the loss while training: a key of train_step's metrics

    takes_label: ClassVar[bool] = False  # whether samples can be asked for by their class

    data: Any  # what `load` gave

    def __init__(self, recipe: Recipe, data: Any, ops: zoo.Ops):
        self.recipe, self.data, self.ops = recipe, data, ops

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> Any:
        """The data of a recipe: `train` and `eval` sources, a name and what cleaning did.

        Args:
          recipe: whose data are wanted.
          folder: of a run that is opened again, for the files that it wrote.

        Raises:
          UserError: they cannot be read, or do not fit the task.
        """
        del folder
        return load(recipe.data)

    def files(self) -> dict[str, str]:
        """Text files that belong beside the checkpoints, such as a tokenizer, by name."""
        return {}

    @property
    def pieces(self) -> int:
        """Into how many pieces, one after the other, a training step cuts its batch."""
        return self.recipe.num_microbatches

    @abc.abstractmethod
    def build(self, rngs: nnx.Rngs) -> Objects:
        """The objects of the task: models, optimisers, statistics, random streams."""

    @abc.abstractmethod
    def train_step(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        """One update in place; scalar metrics named ``train/...``, averaged through ``sync``."""

    @abc.abstractmethod
    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        """Outputs with one row an example; changes nothing."""

    def evaluated(self, objects: Objects) -> Objects:
        """The objects as evaluations see them: with averaged weights, where these are kept."""
        return objects

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

    def query(self, batch: Any) -> Any:
        """What of a batch is known of new examples too: what :meth:`predict` takes."""
        return batch["inputs"]

    @abc.abstractmethod
    def predict(self, objects: Objects, inputs: Any) -> dict[str, jax.Array]:
        """What a served or exported model answers to a query; changes nothing."""

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        """Shows the trained model at work: samples as rows, drawn where the request says.

        Raises:
          UserError: the task has nothing to sample, or not so many, or nothing to draw.
        """
        raise UserError(f"recipe {self.recipe.name!r} has nothing to sample; try `eval`")
