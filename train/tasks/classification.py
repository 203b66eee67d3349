"""Classification: a softmax over the classes and the cross-entropy of the true one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train import baselines, figures, metrics
from train.data import AugmentConfig
from train.data.augment import augment, check_sizes
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.report import Section
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks.supervised import Supervised


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The loss of every classifier."""

    label_smoothing: float = 0.0  # ε: targets become (1-ε)·onehot + ε/V (Szegedy et al. 2016)

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(ClassifierConfig):
    """What is done to the images of a classifier, and what it is compared with."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    baseline: Literal["none", "logistic-regression", "digits-mlp"] = (
        "logistic-regression"  # what it must beat
    )


class Classification(Supervised):
    """Minimises ``-Σ_v p_v log softmax(logits)_v`` (Goodfellow et al. 2016, section 6.2.2.3)."""

    summary_metric = "train/accuracy"

    @property
    def config(self) -> ClassifierConfig:
        return self.recipe.task

    @property
    def num_outputs(self) -> int:
        if self.data.num_classes is None:
            raise UserError(
                f"data {self.data.name!r} has real-valued targets; a classifier needs "
                "classes: choose a regression recipe or another data set"
            )
        return self.data.num_classes

    @property
    def has_images(self) -> bool:
        return len(self.data.input_shape) == 3

    @property
    def augmentation(self) -> AugmentConfig:
        return self.recipe.task.augment

    def build(self, rngs: nnx.Rngs) -> Objects:
        if not self.has_images and self.augmentation != AugmentConfig():
            raise UserError(
                f"data {self.data.name!r} has inputs of shape {self.data.input_shape}; only images "
                "can be augmented: leave the --task.augment fields as they are"
            )
        if self.has_images:
            check_sizes(self.augmentation, *self.data.input_shape[:2])
        return super().build(rngs)

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        inputs, targets = batch["inputs"], jax.nn.one_hot(batch["targets"], self.num_outputs)
        if self.has_images:
            inputs, targets = augment(self.augmentation, key, inputs, targets)
        return {**batch, "inputs": inputs, "targets": targets}

    def loss(
        self, model, batch: Batch, key: jax.Array, sync: Sync = Sync()
    ) -> tuple[jax.Array, Metrics]:
        logits = self.answer(model, self.query(batch), nnx.Rngs(dropout=sync.own(key)))
        losses = self.ops.softmax_cross_entropy(
            logits, batch["targets"], label_smoothing=self.config.label_smoothing
        )
        hits = logits.argmax(-1) == batch["targets"].argmax(-1)
        return losses.mean(), {"train/accuracy": hits.mean(dtype=jnp.float32)}

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        logits = self.forward(objects, self.query(batch))
        return {
            "probabilities": jax.nn.softmax(logits),
            "loss": self.ops.softmax_cross_entropy(logits, batch["targets"]),
            "target": batch["targets"],
        }

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        target, probabilities = outputs["target"], outputs["probabilities"]
        matrix = metrics.confusion_matrix(target, probabilities.argmax(-1), self.num_outputs)
        summary = {
            "loss": float(outputs["loss"].mean(dtype=np.float64)),
            "accuracy": metrics.accuracy(target, probabilities.argmax(-1)),
            "precision": metrics.precision(matrix),
            "recall": metrics.recall(matrix),
            "f1": metrics.f1(matrix),
        }
        if len(np.unique(target)) > 1:  # one class alone has no ranking
            summary["auroc"] = metrics.auroc(target, probabilities)
        return summary

    def baseline(self, folder: Path) -> Baseline | None:
        if self.recipe.task.baseline == "none":
            return None
        if self.recipe.task.baseline == "digits-mlp":
            return baselines.digits_mlp(self.recipe, folder)
        return baselines.logistic_regression(self.data)

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        target, probabilities = outputs["target"], outputs["probabilities"]
        names, predicted = self.data.class_names, probabilities.argmax(-1)
        matrix = metrics.confusion_matrix(target, predicted, self.num_outputs)
        wrong = int((predicted != target).sum())
        sections = [
            Section(
                "Confusion matrix",
                f"Rows are the true class, columns the predicted one: {wrong} of {len(target)} "
                "held-out examples are off the diagonal.",
                figures.confusion_matrix_figure(matrix, names),
            )
        ]
        if self.num_outputs == 2:
            sections.append(
                Section(
                    "Receiver operating characteristic",
                    f"Class {names[1]!r} is the positive one.",
                    figures.roc_figure(probabilities[:, 1], target),
                )
            )
        # The mistakes made with most confidence come first: they teach the most.
        order = np.argsort(np.where(predicted != target, -probabilities.max(-1), 1), kind="stable")
        return sections + self.mistakes(order[: min(wrong, 24)], outputs)

    def mistakes(self, rows: np.ndarray, outputs: Outputs) -> list[Section]:
        """The held-out examples ``rows``, which are classified wrongly, the surest first."""
        if not self.has_images:
            return []
        images = self.data.eval.gather(rows)["inputs"]
        return [
            Section(
                "Most confident mistakes",
                "Held-out images that the network gets wrong, the surest of them first.",
                figures.image_grid_figure(images, self._titles(rows, outputs)),
            )
        ]

    def _titles(self, rows, outputs: Outputs) -> list[str]:
        names, probabilities = self.data.class_names, outputs["probabilities"]
        return [
            f"{names[outputs['target'][i]]} as {names[probabilities[i].argmax()]} "
            f"({probabilities[i].max():.0%})"
            for i in rows
        ]

    def predict(self, objects: Objects, inputs: Any) -> dict[str, jax.Array]:
        probabilities = jax.nn.softmax(self.forward(objects, inputs))
        return {"probabilities": probabilities, "label": probabilities.argmax(-1)}

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        rows, out = self.held_out(request), request.out
        batch = self.data.eval.gather(rows)
        query = jax.tree.map(jnp.asarray, self.query(batch))
        probabilities = np.asarray(self.predict(objects, query)["probabilities"])
        outputs = {"target": np.asarray(batch["targets"]), "probabilities": probabilities}
        if out is not None:
            if not self.has_images:
                raise UserError(
                    f"--out {out}: {self.data.name} holds no images to draw; leave it out"
                )
            titles = self._titles(range(len(rows)), outputs)
            figures.image_grid_figure(batch["inputs"], titles).savefig(out)
        names = self.data.class_names
        return [
            {
                "example": int(row),
                "target": names[target],
                "predicted": names[p.argmax()],
                "probability": float(p.max()),
            }
            for row, target, p in zip(rows, outputs["target"], probabilities, strict=True)
        ]
