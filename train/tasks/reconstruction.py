"""Autoencoding: a network tells its input through a narrow code, by the mean squared error.

    L = E ‖x̂(x + noise · ε) - x‖² / D,   ε ~ N(0, I)

With noise it learns to take noise away (Vincent et al. 2010), though it is measured without.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

import zoo
from train import baselines, figures
from train.data import AugmentConfig
from train.data.augment import augment, check_sizes
from train.gradient import Batch, Metrics
from train.losses import square_errors
from train.report import Section
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks.network import Network

NUM_SHOWN = 8  # inputs in a row of the report


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What the network is fed with."""

    noise: float = 0.0  # standard deviation of what is added to pixels of 0 to 1
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    baseline: Literal["none", "pca"] = "pca"  # as many principal components as the code has numbers

    def __post_init__(self):
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise={self.noise} must be finite and not negative")


class Reconstruction(Network):
    """Inputs through a code and back."""

    summary_metric = "train/grad_norm"

    @property
    def config(self) -> ReconstructionConfig:
        return self.recipe.task

    def build(self, rngs: nnx.Rngs) -> Objects:
        config = self.recipe.model.for_data(self.data.input_shape, self.data.num_classes)
        check_sizes(self.config.augment, *self.data.input_shape[:2])
        return self.network(zoo.build(config, rngs=rngs, ops=self.ops), rngs)

    def prepare(self, objects: Objects, batch: Batch) -> Batch:
        inputs = batch["inputs"].astype(jnp.float32) / 255
        unused = jnp.zeros((len(inputs), 1))
        inputs, _ = augment(self.config.augment, objects["rngs"].augment(), inputs, unused)
        return {"inputs": inputs.astype(self.recipe.compute_dtype)}

    def loss(
        self, model: Any, batch: Batch, key: Array, sync: Sync = Sync()
    ) -> tuple[Array, Metrics]:
        inputs = batch["inputs"]
        noise = sync.draw(jax.random.normal, key, inputs.shape, inputs.dtype)
        fed = inputs + self.config.noise * noise
        return jnp.mean(square_errors(model(fed), inputs)), {}

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        inputs = batch["inputs"].astype(jnp.float32) / 255
        told = self.tell(objects, batch["inputs"])
        return {"square_error": square_errors(told, inputs), "told": to_pixels(told)}

    def tell(self, objects: Objects, pixels: Array) -> Float[Array, "B *I"]:
        """What the code tells of pixels of 0 to 255, as 0 to 1."""
        inputs = (pixels.astype(jnp.float32) / 255).astype(self.recipe.compute_dtype)
        return self.trained(objects)(inputs).astype(jnp.float32)

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        return {"mse": float(outputs["square_error"].mean())}

    def baseline(self, folder: Path) -> Baseline | None:
        if self.config.baseline == "none":
            return None
        rows = [
            split.arrays()["inputs"].reshape(len(split), -1) / 255
            for split in (self.data.train, self.data.eval)
        ]
        return baselines.principal_components(rows[0], rows[1], self.recipe.model.code_dim)

    def predict(self, objects: Objects, inputs: Any) -> dict[str, jax.Array]:
        return {"reconstruction": to_pixels(self.tell(objects, inputs))}

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        inputs, errors = self.data.eval.arrays()["inputs"], outputs["square_error"]
        evenly = np.linspace(0, len(errors) - 1, NUM_SHOWN).astype(int)
        worst = np.argsort(errors)[::-1][:NUM_SHOWN]
        return [
            Section(title, text, self._pairs(inputs[rows], outputs["told"][rows]))
            for title, text, rows in (
                ("Told by their codes", "Held-out inputs and what their codes tell.", evenly),
                ("Told worst", "Those with the largest squared errors.", worst),
            )
        ]

    def _pairs(self, inputs: np.ndarray, told: np.ndarray) -> Any:
        return figures.image_rows_figure(np.stack([inputs, told]), ("held out", "told"))

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        rows = self.held_out(request)
        inputs = self.data.eval.arrays()["inputs"][rows]
        told = np.asarray(self.predict(objects, jnp.asarray(inputs))["reconstruction"])
        if request.out:
            self._pairs(inputs, told).savefig(request.out)
        errors = np.mean(
            np.square((told / 255.0) - inputs / 255.0), axis=tuple(range(1, inputs.ndim))
        )
        return [
            {"example": int(row), "mse": float(error)}
            for row, error in zip(rows, errors, strict=True)
        ]


def to_pixels(told: Float[Array, "B *I"]) -> Array:
    """0 to 1 as whole numbers from 0 to 255, and what lies beyond as black or white."""
    return jnp.round(jnp.clip(told, 0, 1) * 255).astype(jnp.uint8)
