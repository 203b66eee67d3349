"""Adversarial learning: a generator and a discriminator, each with an optimiser of its own.

One step takes a batch in pieces, one for each step of the discriminator, then moves the generator
once (Goodfellow et al. 2014, algorithm 1; Arjovsky et al. 2017, algorithm 1). The losses, as
`train.losses` has them:

    non-saturating  L_D = -E_x[log D(x)] - E_z[log(1 - D(G(z)))]    L_G = -E_z[log D(G(z))]
    minimax         the same L_D                                    L_G = E_z[log(1 - D(G(z)))]
    wasserstein     L_D = E_z[f(G(z))] - E_x[f(x)]                  L_G = -E_z[f(G(z))]
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

import kernels
import zoo
from train import losses
from train.config import Recipe
from train.data.augment import check_sizes
from train.errors import UserError
from train.gradient import Batch, Metrics, training_view, value_and_grad
from train.optim import Optimizer
from train.step import Objects
from train.sync import Sync
from train.tasks.generation import Gallery, Generation, GenerationConfig

PLAYERS = {  # what the discriminator minimises, and what the generator does
    "non-saturating": (losses.discriminator_loss, losses.generator_loss),
    "minimax": (losses.discriminator_loss, losses.minimax_generator_loss),
    "wasserstein": (losses.critic_loss, losses.critic_generator_loss),
}


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(GenerationConfig):
    """The game that the two networks play, and how what comes of it is measured."""

    loss: Literal["non-saturating", "minimax", "wasserstein"] = "non-saturating"
    discriminator_steps: int = 1  # a step of the generator; each has its own piece of the batch
    discriminator_lr: float = 1.0  # the discriminator's learning rate, times the generator's
    gradient_penalty: float = 0.0  # λ of (‖∇f(x̂)‖ - 1)² between real and generated images
    r1_penalty: float = 0.0  # γ of ½ ‖∇D(x)‖² at real images
    baseline: Literal["none", "gaussian", "digits-gan"] = "gaussian"  # what it must beat

    def __post_init__(self):
        super().__post_init__()
        if self.discriminator_steps < 1:
            raise ValueError(f"discriminator_steps={self.discriminator_steps} must be at least 1")
        if not 0 < self.discriminator_lr < float("inf"):
            raise ValueError(
                f"discriminator_lr={self.discriminator_lr} must be positive and finite"
            )
        for name in ("gradient_penalty", "r1_penalty"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be finite and not negative")


class Adversarial(Generation):
    """Two networks that learn from each other."""

    summary_metric = "train/generator_loss"

    @property
    def config(self) -> AdversarialConfig:
        return self.recipe.task

    @staticmethod
    def latent_shape(recipe: Recipe) -> tuple[int, ...]:
        return (recipe.model.latent_dim,)

    @property
    def pieces(self) -> int:
        return self.config.discriminator_steps * super().pieces

    def build(self, rngs: nnx.Rngs) -> Objects:
        recipe, config = self.recipe, self.config
        model = recipe.model.for_data(self.data.input_shape, self.data.num_classes)
        check_sizes(config.augment, *self.data.input_shape[:2])
        if recipe.batch_size % self.pieces:
            raise UserError(
                f"batch_size={recipe.batch_size} cannot be cut in {self.pieces} pieces: "
                f"task.discriminator_steps={config.discriminator_steps} times "
                f"num_microbatches={recipe.num_microbatches} must divide it"
            )
        has_penalty = bool(config.gradient_penalty or config.r1_penalty)
        if has_penalty and model.norm == "batch":
            raise UserError(
                "a penalty is of each image's gradient, which batch norm mixes with the others': "
                "with task.gradient_penalty or task.r1_penalty use --model.norm layer or none"
            )
        ops = kernels.for_second_derivatives(self.ops) if has_penalty else self.ops
        gan = zoo.build(model, rngs=rngs, ops=ops)
        optim, steps = recipe.optim, recipe.steps
        critic_optim = dataclasses.replace(
            optim, peak_lr=optim.peak_lr * config.discriminator_lr, ema_decay=None
        )
        return {
            "generator": gan.generator,
            "discriminator": gan.discriminator,
            "generator_optimizer": Optimizer(gan.generator, optim, steps),
            "discriminator_optimizer": Optimizer(
                gan.discriminator, critic_optim, steps * config.discriminator_steps
            ),
            "gallery": Gallery(steps),
            "rngs": nnx.Rngs(latent=rngs.latent(), augment=rngs.augment()),
        }

    def train_step(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        optimizer = objects["generator_optimizer"]
        lr = optimizer.learning_rate()
        num = self.config.discriminator_steps
        pieces = [{k: jnp.split(v, num)[i] for k, v in batch.items()} for i in range(num)]
        seen = [self.move_discriminator(objects, piece, sync) for piece in pieces]
        metrics = jax.tree.map(lambda *values: sum(values) / num, *seen)
        metrics |= self.move_generator(objects, pieces[-1], sync)
        objects["gallery"].hang(optimizer.step[...], lambda: self.fixed_images(objects))
        return {**metrics, "train/learning_rate": lr}

    def move_discriminator(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        """One step of the discriminator on a piece of the batch; ``train/loss`` is its loss."""
        generator, discriminator = (
            training_view(objects[name], sync) for name in ("generator", "discriminator")
        )
        real = self.from_pixels(batch["inputs"])
        labels = self.labels(batch)
        fake = generator(self.latents(objects, len(real), sync), labels)
        metrics, grads = value_and_grad(
            partial(self.discriminator_loss, sync=sync),
            discriminator,
            _present(real=real, fake=fake, labels=labels),
            objects["rngs"].augment(),
            sync=sync,
            dtype=self.recipe.compute_dtype,
            num_microbatches=self.recipe.num_microbatches,
        )
        objects["discriminator_optimizer"].update(objects["discriminator"], grads)
        return metrics

    def move_generator(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        """One step of the generator against the discriminator as it is now."""
        graphdef, state = nnx.split(training_view(objects["discriminator"], sync))
        state = optax.tree.cast(state, self.recipe.compute_dtype)

        def loss(generator, batch, key):
            # A discriminator of this trace: what its statistics become is not kept.
            judge = nnx.merge(graphdef, jax.tree.map(lambda x: x, state))
            labels = batch.get("labels")
            images = self.augmented(key, generator(batch["latents"], labels), sync)
            return PLAYERS[self.config.loss][1](judge(images, labels)), {}

        labels = self.labels(batch)
        latents = self.latents(objects, len(batch["inputs"]), sync)
        metrics, grads = value_and_grad(
            loss,
            training_view(objects["generator"], sync),
            _present(latents=latents, labels=labels),
            objects["rngs"].augment(),
            sync=sync,
            dtype=self.recipe.compute_dtype,
            num_microbatches=self.recipe.num_microbatches,
        )
        objects["generator_optimizer"].update(objects["generator"], grads)
        return {"train/generator_loss": metrics["train/loss"]}

    def discriminator_loss(
        self, discriminator, batch: Batch, key: Array, sync: Sync = Sync()
    ) -> tuple[Array, Metrics]:
        """The discriminator's loss with its penalties, and its mean logits."""
        config = self.config
        real, fake, labels = batch["real"], batch["fake"], batch.get("labels")
        keys = jax.random.split(key, 3)
        on_real = discriminator(self.augmented(keys[0], real, sync), labels)
        on_fake = discriminator(self.augmented(keys[1], fake, sync), labels)
        loss = PLAYERS[config.loss][0](on_real, on_fake)
        if config.gradient_penalty:
            shape = (len(real), 1, 1, 1)
            way = sync.draw(jax.random.uniform, keys[2], shape, real.dtype)
            between = slopes(discriminator, way * real + (1 - way) * fake, labels)
            loss += config.gradient_penalty * losses.gradient_penalty(between)
        if config.r1_penalty:
            loss += config.r1_penalty * losses.r1_penalty(slopes(discriminator, real, labels))
        return loss, {"train/real_logit": on_real.mean(), "train/fake_logit": on_fake.mean()}

    def latents(self, objects: Objects, num: int, sync: Sync = Sync()) -> Float[Array, "B Z"]:
        """Fresh noise."""
        return sync.draw(
            jax.random.normal,
            objects["rngs"].latent(),
            (num, *self.latent_shape(self.recipe)),
            self.recipe.compute_dtype,
            pieces=self.recipe.num_microbatches,
        )

    # --- What the generator makes ---------------------------------------------------------------

    def evaluated(self, objects: Objects) -> Objects:
        average = objects["generator_optimizer"].averaged(objects["generator"])
        return {**objects, "generator": average}

    def generate(
        self, objects: Objects, latents: Array, labels: Int[Array, " B"] | None
    ) -> Float[Array, "B I J C"]:
        generator: Any = nnx.view(objects["generator"], deterministic=True)
        return generator(latents, labels)


def slopes(
    discriminator, images: Float[Array, "B I J C"], labels: Int[Array, " B"] | None
) -> Float[Array, "B I J C"]:
    """``∇D`` at each image; the discriminator's statistics stay as they are."""
    graphdef, state = nnx.split(discriminator)

    def total(images):
        copy = nnx.merge(graphdef, jax.tree.map(lambda x: x, state))
        return copy(images, labels).astype(jnp.float32).sum()

    return jax.grad(total)(images)


def _present(**arrays: Array | None) -> Batch:
    return {name: array for name, array in arrays.items() if array is not None}
