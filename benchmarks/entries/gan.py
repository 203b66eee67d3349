"""A step of the recipe digits-gan: its discriminator moves, then its generator.

Nobody averages weights or augments images, and all are given the same noise.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.classifier import load_flax
from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise
from zoo.models.gan import GANConfig

CONFIG = GANConfig.dcgan_28()
PLAYERS = ("generator", "discriminator")
RATE, BETA1 = 2e-4, 0.5


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """The weights of both networks, a batch of pixels, and noise for each of them."""
    from flax import nnx

    import zoo

    num, rng = 8 if quick else 64, np.random.default_rng(0)
    gan = zoo.build(CONFIG, rngs=nnx.Rngs(0))
    flat = {
        "/".join(map(str, path)): np.asarray(variable[...])
        for path, variable in nnx.to_flat_state(nnx.state(gan))
    }
    return flat | {
        "pixels": rng.integers(0, 256, (num, 28, 28, 1), np.uint8),
        "noise": rng.standard_normal((2, num, CONFIG.latent_dim), np.float32),
    }


def weights(arrays: Arrays, player: str) -> Mapping[str, np.ndarray]:
    """Those of one network, by path."""
    prefix = f"{player}/"
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


class Ours:
    """The recipe's own step, with the noise of the benchmark."""

    def __init__(self, arrays: Arrays):
        import jax.numpy as jnp
        from flax import nnx

        import kernels
        from train.data import AugmentConfig
        from train.recipes import RECIPES
        from train.step import Program
        from train.sync import Sync
        from train.tasks.adversarial import Adversarial

        class FixedNoise(Adversarial):
            def train_step(self, objects, batch, sync):
                self.noise = iter(jnp.asarray(arrays["noise"]))
                return super().train_step(objects, batch, sync)

            def latents(self, objects, num, sync=Sync()):
                return next(self.noise)

        kernels.keep_freed_memory()  # as every run does
        recipe = RECIPES["digits-gan"].load()
        recipe = dataclasses.replace(
            recipe,
            task=dataclasses.replace(recipe.task, augment=AugmentConfig()),
            optim=dataclasses.replace(recipe.optim, ema_decay=None),
            batch_size=len(arrays["pixels"]),
        )
        task = FixedNoise(recipe, FixedNoise.load(recipe), kernels.best())
        objects = task.build(nnx.Rngs(1))
        for player in PLAYERS:
            load_flax(objects[player], weights(arrays, player))
        targets = np.zeros(len(arrays["pixels"]), np.int32)
        self.batch = {"inputs": arrays["pixels"], "targets": targets}
        self.program = Program(objects)
        self.program.compile_train(task.train_step, self.batch)

    def advance(self) -> list[float]:
        """One step."""
        import jax

        metrics = self.program.train(self.batch)
        jax.block_until_ready(self.program.leaves)
        return [float(metrics["train/loss"] + metrics["train/generator_loss"])]


class FlaxNnx:
    """Stock layers under `nnx.jit`, as Flax's documentation writes a training step."""

    def __init__(self, arrays: Arrays):
        import optax
        from flax import nnx

        from benchmarks.twins import flax_gan

        rngs = nnx.Rngs(1)
        self.generator = flax_gan.Generator(CONFIG, rngs)
        self.discriminator = flax_gan.Discriminator(CONFIG, rngs)
        load_flax(self.generator, weights(arrays, "generator"))
        load_flax(self.discriminator, weights(arrays, "discriminator"))
        self.generator_moves, self.discriminator_moves = (
            nnx.Optimizer(player, optax.adam(RATE, b1=BETA1), wrt=nnx.Param)
            for player in (self.generator, self.discriminator)
        )
        self.pixels, self.noise = arrays["pixels"], arrays["noise"]
        self.step = nnx.jit(self._update)

    @staticmethod
    def _update(generator, discriminator, generator_moves, discriminator_moves, pixels, noise):
        import jax
        from flax import nnx

        def critics_loss(discriminator, real, fake):
            on_real, on_fake = discriminator(real), discriminator(fake)
            return jax.nn.softplus(-on_real).mean() + jax.nn.softplus(on_fake).mean()

        def makers_loss(generator, discriminator, z):
            return jax.nn.softplus(-discriminator(generator(z))).mean()

        real = pixels.astype("float32") / 127.5 - 1
        loss, grads = nnx.value_and_grad(critics_loss)(discriminator, real, generator(noise[0]))
        discriminator_moves.update(discriminator, grads)
        other, grads = nnx.value_and_grad(makers_loss)(generator, discriminator, noise[1])
        generator_moves.update(generator, grads)
        return loss + other

    def advance(self) -> list[float]:
        """One step."""
        import jax
        from flax import nnx

        objects = (
            self.generator,
            self.discriminator,
            self.generator_moves,
            self.discriminator_moves,
        )
        loss = self.step(*objects, self.pixels, self.noise)
        jax.block_until_ready(nnx.state(objects))
        return [float(loss)]


class Torch:
    """PyTorch, eager or with networks and losses through `torch.compile`."""

    def __init__(self, arrays: Arrays, *, compiled: bool):
        import torch

        from benchmarks.twins import torch_gan

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.generator, self.discriminator = (
            torch_gan.Generator(CONFIG),
            torch_gan.Discriminator(CONFIG),
        )
        for name, player in zip(PLAYERS, (self.generator, self.discriminator), strict=True):
            player.load(weights(arrays, name))
        self.moves: list[Any] = [
            torch.optim.Adam(player.parameters(), lr=RATE, betas=(BETA1, 0.999))
            for player in (self.generator, self.discriminator)
        ]
        real = torch.from_numpy(arrays["pixels"]).permute(0, 3, 1, 2).float() / 127.5 - 1
        self.real, self.noise = real.contiguous(), torch.from_numpy(arrays["noise"])

        def critics_loss(real, fake):
            return torch_gan.discriminator_loss(self.discriminator(real), self.discriminator(fake))

        def makers_loss(z):
            return torch_gan.generator_loss(self.discriminator(self.generator(z)))

        wrap = torch.compile if compiled else lambda function: function
        self.critics_loss, self.makers_loss = wrap(critics_loss), wrap(makers_loss)

    def advance(self) -> list[float]:
        """One step."""
        import torch

        with torch.no_grad():
            fake = self.generator(self.noise[0])
        loss = self.critics_loss(self.real, fake)
        self._move(1, self.discriminator, loss)
        other = self.makers_loss(self.noise[1])
        self._move(0, self.generator, other)
        return [float(loss.detach() + other.detach())]

    def _move(self, player: int, module: Any, loss: Any) -> None:
        """Only this player's gradients are computed."""
        import torch

        parameters = list(module.parameters())
        for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = grad
        self.moves[player].step()


ENTRY = Entry(
    name="gan",
    summary="A step of a DCGAN's discriminator and one of its generator, 64 images of 28x28x1.",
    unit="training step",
    prepare=prepare,
    competitors={
        OURS: Competitor(build=Ours, what="kernels.best()"),
        "flax.nnx": Competitor(build=FlaxNnx, what="stock layers, nnx.jit"),
        "torch": Competitor(
            build=lambda arrays: Torch(arrays, compiled=False), requires=("torch",), what="eager"
        ),
        "torch.compile": Competitor(
            build=lambda arrays: Torch(arrays, compiled=True),
            requires=("torch",),
            what="networks and losses",
        ),
    },
    promises=(Promise(text="at least level with PyTorch", against="torch", at_least_ratio=1.0),),
)
