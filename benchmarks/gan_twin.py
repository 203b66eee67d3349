"""The recipe digits-gan by PyTorch: networks, first weights, batches, steps and optimiser are ours.

    python -m benchmarks twin --seeds 0 1 2

The noise and the shifts are PyTorch's own draws, so that two runs agree in what they reach and not
in their numbers. Both are measured by the same code with the same latents. The twin trains on a GPU
where PyTorch finds one.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from rich.console import Console

from benchmarks.record import RESULTS, clean_commit
from benchmarks.twins import torch_gan
from train import loop
from train.config import Recipe
from train.data import train_batches
from train.evaluation import outputs_of
from train.recipes import RECIPES
from train.result import device, write_json

RECIPE = "digits-gan"
FILE = "digits-gan-twin.json"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compare(seeds: Sequence[int], console: Console, results: Path = RESULTS) -> Path:
    """Trains the twin with each seed and writes what it reached.

    Raises:
      UserError: a working tree whose changes no commit names.
    """
    commit = clean_commit()
    recipe = RECIPES[RECIPE].load()
    runs = {str(seed): train(recipe, seed, console) for seed in seeds}
    summary = {
        "commit": commit,
        "recipe": RECIPE,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else device(),
        "seeds": runs,
        "mean": statistics.fmean(run["metrics"][RECIPES[RECIPE].metric] for run in runs.values()),
    }
    write_json(results / FILE, summary)
    return results / FILE


def train(recipe: Recipe, seed: int, console: Console) -> dict[str, Any]:
    """One run of the twin: its metrics on the held-out digits, and its seconds of training."""
    torch.manual_seed(seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    task, objects = loop.build(dataclasses.replace(recipe, seed=seed))
    config, game = recipe.model, recipe.task
    generator, discriminator = torch_gan.Generator(config), torch_gan.Discriminator(config)
    for name, twin in (("generator", generator), ("discriminator", discriminator)):
        flat = nnx.to_flat_state(nnx.state(objects[name]))
        twin.load({"/".join(map(str, path)): np.array(v[...]) for path, v in flat})
        twin.to(DEVICE)
    average = torch.optim.swa_utils.AveragedModel(
        generator,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.optim.ema_decay or 0.0),
    )
    moves = [
        torch.optim.Adam(twin.parameters(), lr=lr, betas=(recipe.optim.beta1, recipe.optim.beta2))
        for twin, lr in (
            (generator, recipe.optim.peak_lr),
            (discriminator, recipe.optim.peak_lr * game.discriminator_lr),
        )
    ]
    batches = train_batches(task.data.train, batch_size=recipe.batch_size, seed=seed)
    start = time.perf_counter()
    for step in range(1, recipe.steps + 1):
        pixels = torch.from_numpy(next(batches)["inputs"]).to(DEVICE).permute(0, 3, 1, 2)
        real = pixels.float() / 127.5 - 1
        with torch.no_grad():
            fake = generator(torch.randn(len(real), config.latent_dim, device=DEVICE))
        moves[1].zero_grad()
        torch_gan.discriminator_loss(
            discriminator(shifted(real, game.augment.shift)),
            discriminator(shifted(fake, game.augment.shift)),
        ).backward()
        moves[1].step()
        moves[0].zero_grad()
        fake = generator(torch.randn(len(real), config.latent_dim, device=DEVICE))
        torch_gan.generator_loss(discriminator(shifted(fake, game.augment.shift))).backward()
        moves[0].step()
        average.update_parameters(generator)
        if step % recipe.eval_every == 0:
            console.print(f"seed {seed}: step {step}/{recipe.steps}")
    seconds = time.perf_counter() - start
    # The statistics of batch norm are the last ones, as in the recipe.
    statistics_of = dict(generator.named_buffers())
    for name, buffer in average.module.named_buffers():
        buffer.copy_(statistics_of[name])
    return {"metrics": measured(task, average.module.eval()), "seconds": round(seconds, 3)}


def shifted(images: torch.Tensor, largest: int) -> torch.Tensor:
    """Each image moved by up to so many rows and columns, black where nothing was."""
    if not largest:
        return images
    num, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, [largest] * 4, value=-1.0)
    y, x = (torch.randint(0, 2 * largest + 1, (num, 1), device=images.device) for _ in range(2))
    rows = (y + torch.arange(height, device=images.device))[:, None, :, None].expand(
        -1, channels, -1, padded.shape[-1]
    )
    columns = (x + torch.arange(width, device=images.device))[:, None, None, :].expand(
        -1, channels, height, -1
    )
    return padded.gather(2, rows).gather(3, columns)


@torch.no_grad()
def measured(task: Any, generator: torch.nn.Module) -> dict[str, float]:
    """What the recipe's own evaluation says of the twin's images."""
    judged = jax.jit(task.judged)

    def answer(batch):
        latents = torch.from_numpy(batch["latents"]).to(DEVICE).flatten(0, 1)
        images = generator(latents).permute(0, 2, 3, 1).cpu().numpy()
        return judged((images + 1) * 127.5, batch)

    return task.summarise(outputs_of(answer, task, task.recipe.eval_batch_size))
