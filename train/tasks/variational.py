"""Variational autoencoding: images are explained by codes, and made of codes drawn at random.

    -ELBO_β = -E_q[log N(x; μ(z), σ² I)] + β KL(q(z | x) ‖ N(0, I))

per image, in nats, with pixels from -1 to 1. β = 1 bounds the likelihood (Kingma & Welling 2014,
eq. 3); a larger one wants codes that say less (Higgins et al. 2017, eq. 4). What is reported is the
bound with β = 1, from one code an image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from train import baselines, figures, losses
from train.config import Recipe
from train.gradient import Batch, Metrics
from train.report import Section
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs
from train.tasks.generation import NUM_SHOWN, GenerationConfig
from train.tasks.generative_network import GenerativeNetwork


@dataclass(frozen=True, kw_only=True)
class VariationalConfig(GenerationConfig):
    """How much a code may say, and how what comes of it is measured."""

    beta: float = 1.0  # of the divergence in the loss; 1 is the bound itself
    baseline: Literal["none", "pca"] = "pca"  # PCA's Gaussian with as wide a code

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"beta={self.beta} must be finite and not negative")


class Variational(GenerativeNetwork):
    """Codes that are distributions."""

    summary_metric = "train/divergence"

    @property
    def config(self) -> VariationalConfig:
        return self.recipe.task

    @staticmethod
    def latent_shape(recipe: Recipe) -> tuple[int, ...]:
        return (recipe.model.latent_dim,)

    def loss(
        self, model: Any, batch: Batch, key: Array, sync: Sync = Sync()
    ) -> tuple[Array, Metrics]:
        images = batch["images"]
        shape = (len(images), self.recipe.model.latent_dim)
        noise = sync.draw(jax.random.normal, key, shape, images.dtype)
        likelihood, divergence, _ = self.terms(model, images, noise, batch.get("labels"))
        loss = jnp.mean(self.config.beta * divergence - likelihood)
        return loss, {"train/divergence": jnp.mean(divergence)}

    def terms(
        self, model: Any, images: Array, noise: Array, labels: Array | None
    ) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, "B I J C"]]:
        """The likelihood given one code, the divergence of the codes, and μ of that code."""
        told, mean, log_var = model(images, noise, labels)
        likelihood = losses.gaussian_log_likelihood(images, told, model.log_sigma[...])
        return likelihood, losses.kl_from_standard_normal(mean, log_var), told

    # --- Measured -------------------------------------------------------------------------------

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        images = self.from_pixels(batch["inputs"])
        noise, labels = batch["latents"][:, 0].astype(images.dtype), self.labels(batch)
        model = self.trained(objects)
        likelihood, divergence, told = self.terms(model, images, noise, labels)
        return {
            **super().eval_step(objects, batch),
            "likelihood": likelihood,
            "divergence": divergence,
            "square_error": losses.square_errors(told, images),
            "told": jnp.round(self.to_pixels(told)).astype(jnp.uint8),
        }

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        likelihood, divergence = outputs["likelihood"].mean(), outputs["divergence"].mean()
        return {
            "elbo": float(likelihood - divergence),
            "divergence": float(divergence),
            "mse": float(outputs["square_error"].mean()),
            **super().summarise(outputs),
        }

    def baseline(self, folder: Path) -> Baseline | None:
        if self.config.baseline == "none":
            return None
        rows = [
            np.asarray(self.from_pixels(split.arrays()["inputs"]), np.float64).reshape(
                len(split), -1
            )
            for split in (self.data.train, self.data.eval)
        ]
        return baselines.probabilistic_pca(rows[0], rows[1], self.recipe.model.latent_dim)

    # --- Made -----------------------------------------------------------------------------------

    def generate(
        self, objects: Objects, latents: Array, labels: Int[Array, " B"] | None
    ) -> Float[Array, "B I J C"]:
        return objects["model"].decode(latents.astype(self.recipe.compute_dtype), labels)

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        real = self.data.eval.arrays()["inputs"]
        evenly = np.linspace(0, len(real) - 1, NUM_SHOWN).astype(int)  # digits stand in order
        return [
            Section(
                "Digits told by their codes",
                "Above held-out digits, below what is made of one code of each.",
                figures.image_rows_figure(
                    np.stack([real[evenly], outputs["told"][evenly]]),
                    ("held out", "told"),
                ),
            ),
            *super().sections(objects, outputs),
        ]
