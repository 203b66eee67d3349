"""Regression: one real number from one example, by the least mean squared error."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train import baselines, figures, metrics
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.losses import mean_squared_error
from train.report import Section
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks.supervised import Supervised


@dataclass(frozen=True, kw_only=True)
class RegressionConfig:
    """What a regression is compared with."""

    baseline: Literal["none", "least-squares"] = "least-squares"  # what it is held against


class Regression(Supervised):
    """Minimises ``1/B Σ (ŷ - y)²`` (Bishop 2006, section 3.1.1) on targets in their own units."""

    summary_metric = "train/rmse"
    num_outputs = 1

    def build(self, rngs: nnx.Rngs) -> Objects:
        if self.data.num_classes is not None:
            raise UserError(
                f"data {self.data.name!r} has {self.data.num_classes} classes; a regression needs "
                "real-valued targets: choose a classification recipe or another data set"
            )
        return super().build(rngs)

    def loss(
        self, model, batch: Batch, key: jax.Array, sync: Sync = Sync()
    ) -> tuple[jax.Array, Metrics]:
        predicted = model(batch["inputs"], rngs=nnx.Rngs(dropout=sync.own(key)))[:, 0]
        loss = mean_squared_error(predicted, batch["targets"])
        return loss, {"train/rmse": jnp.sqrt(sync(loss))}

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        return {
            "predicted": self.forward(objects, batch["inputs"])[:, 0],
            "target": batch["targets"],
        }

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        predicted, target = outputs["predicted"], outputs["target"]
        rmse = metrics.rmse(target, predicted)
        return {
            "loss": rmse**2,
            "rmse": rmse,
            "mae": metrics.mae(target, predicted),
            "r2": metrics.r2(target=target, predicted=predicted),
        }

    def baseline(self, folder: Path) -> Baseline | None:
        return None if self.recipe.task.baseline == "none" else baselines.least_squares(self.data)

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        return [
            Section(
                "Predictions and residuals",
                "Each point is one held-out example; a perfect model puts all on the zero line.",
                figures.residual_figure(outputs["predicted"], outputs["target"]),
            )
        ]

    def predict(self, objects: Objects, inputs: jax.Array) -> dict[str, jax.Array]:
        return {"value": self.forward(objects, inputs)[:, 0]}

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        if request.out is not None:
            raise UserError(
                f"--out {request.out}: predictions of numbers have no picture; leave it out"
            )
        rows = self.held_out(request)
        batch = self.data.eval.gather(rows)
        predicted = np.asarray(self.predict(objects, jnp.asarray(batch["inputs"]))["value"])
        return [
            {"example": int(row), "target": float(target), "predicted": float(value)}
            for row, target, value in zip(rows, batch["targets"], predicted, strict=True)
        ]
