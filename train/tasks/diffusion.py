"""Diffusion: a network learns to take noise away, and so makes images out of nothing but noise.

    flow  t ~ U(0, 1),        x_t = (1-t) ε + t x₀,              L = E ‖v(x_t, t) - (x₀ - ε)‖²
    ddpm  t ~ U{1, ..., T},   x_t = √ᾱ_t x₀ + √(1-ᾱ_t) ε,        L = E ‖ε̂(x_t, t/T) - ε‖²

(Lipman et al. 2023, eq. 23; Ho et al. 2020, eq. 14). A flow is followed from noise to image by
Euler's or Heun's steps; DDPM's chain of posteriors is walked back, by every so many steps.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from train.config import Recipe
from train.gradient import Batch, Metrics
from train.step import Objects
from train.sync import Sync
from train.tasks.generation import GenerationConfig
from train.tasks.generative_network import GenerativeNetwork
from zoo.functional import diffusion

SOLVERS = {"euler": diffusion.euler, "heun": diffusion.heun}


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(GenerationConfig):
    """What is learned of noise, and how images are made of it."""

    method: Literal["flow", "ddpm"] = "flow"
    num_noise_levels: int = 1000  # T of ddpm; a flow knows all levels between 0 and 1
    solver: Literal["euler", "heun"] = "heun"  # of a flow; heun looks twice a step
    sample_steps: int = 8  # from noise to image
    guidance: float = 1.0  # how far beyond the class, where one is told; 1: no farther
    label_dropout: float = 0.1  # of classes while training, so that both can be asked
    baseline: Literal["none", "gaussian", "digits-gan"] = "gaussian"  # what it must beat

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_noise_levels", "sample_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.method == "ddpm" and self.sample_steps > self.num_noise_levels:
            raise ValueError(
                f"sample_steps={self.sample_steps} must be at most "
                f"num_noise_levels={self.num_noise_levels}"
            )
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance={self.guidance} must be finite and not negative")
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"label_dropout={self.label_dropout} must lie in [0, 1)")


class Diffusion(GenerativeNetwork):
    """Images out of noise, step by step."""

    @property
    def config(self) -> DiffusionConfig:
        return self.recipe.task

    @staticmethod
    def latent_shape(recipe: Recipe) -> tuple[int, ...]:
        model = recipe.model
        return (model.image_size, model.image_size, model.in_channels)

    # --- Learned --------------------------------------------------------------------------------

    def loss(
        self, model: Any, batch: Batch, key: Array, sync: Sync = Sync()
    ) -> tuple[Array, Metrics]:
        images, labels = batch["images"], batch.get("labels")
        rngs, size = nnx.Rngs(key), (len(images),)
        noise = sync.draw(jax.random.normal, rngs.noise(), images.shape, images.dtype)
        if labels is not None:
            chance = sync.draw(jax.random.uniform, rngs.forget(), size)
            forgotten = chance < self.config.label_dropout
            labels = jnp.where(forgotten, self.num_classes, labels)
        if self.config.method == "flow":
            t = sync.draw(jax.random.uniform, rngs.time(), size)
            noisy, wanted = diffusion.interpolate(images, noise, t), images - noise
        else:
            levels = self.config.num_noise_levels
            step = sync.draw(jax.random.randint, rngs.time(), size, 1, levels + 1)
            noisy, wanted = diffusion.diffuse(images, noise, self.alpha_bar[step]), noise
            t = step / levels
        predicted = model(noisy, t, labels, rngs=nnx.Rngs(dropout=sync.own(rngs.dropout())))
        return jnp.mean(jnp.square(predicted.astype(jnp.float32) - wanted)), {}

    @property
    def num_classes(self) -> int:
        """Also the label that stands for no class."""
        return self.data.num_classes

    @property
    def alpha_bar(self) -> Float[Array, " T"]:
        """ᾱ of ddpm's noise levels."""
        return jnp.asarray(diffusion.cosine_schedule(self.config.num_noise_levels))

    # --- Made -----------------------------------------------------------------------------------

    def generate(
        self, objects: Objects, latents: Array, labels: Int[Array, " B"] | None
    ) -> Float[Array, "B I J C"]:
        model: Any = nnx.view(objects["model"], deterministic=True, raise_if_not_found=False)
        x = latents.astype(self.recipe.compute_dtype)

        def look(x: Array, t: Array) -> Array:
            seen = model(x, t, labels)
            if labels is None or self.config.guidance == 1:
                return seen
            return diffusion.guide(seen, model(x, t, None), self.config.guidance)

        if self.config.method == "flow":
            return SOLVERS[self.config.solver](look, x, self.config.sample_steps)
        return self.walk_back(look, x)

    def walk_back(self, look: Any, x: Float[Array, "B I J C"]) -> Float[Array, "B I J C"]:
        """DDPM's algorithm 2 over `sample_steps` of the noise levels, evenly spread.

        Which noise an image meets on the way follows from the one that it starts as, so that an
        image does not depend on those beside it.
        """
        config = self.config
        levels = jnp.linspace(0, config.num_noise_levels, config.sample_steps + 1).astype(int)
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32).reshape(len(x), -1), jnp.uint32)
        keys = jax.vmap(jax.random.wrap_key_data)(bits[:, :2])

        def step(x: Array, levels: tuple[Array, Array]) -> tuple[Array, None]:
            now, before = (jnp.full(len(x), self.alpha_bar[level]) for level in levels)
            noise = look(x, jnp.full(len(x), levels[0] / config.num_noise_levels))
            image = jnp.clip(diffusion.denoise(x, noise, now), -1, 1)
            mean, variance = diffusion.posterior(image, x, now, before)
            fresh = jax.vmap(
                lambda key: jax.random.normal(jax.random.fold_in(key, levels[0]), x.shape[1:])
            )(keys)
            return mean + jnp.sqrt(variance) * fresh.astype(x.dtype), None

        return jax.lax.scan(step, x, (levels[:0:-1], levels[-2::-1]))[0]
