"""A U-Net that turns noise into handwritten digits, by flow matching.

    python -m train run digits-diffusion

`--task.method ddpm --task.sample-steps 250` is the older way; `--model.num-classes 10
--task.guidance 2` draws the digit that `sample --label` asks for.
"""

from train.config import Recipe
from train.data import DataConfig
from train.optim import OptimConfig
from train.tasks.diffusion import DiffusionConfig
from zoo.models.diffusion import UNetConfig

RECIPE = Recipe(
    name="digits-diffusion",
    model=UNetConfig(),
    task=DiffusionConfig(baseline="digits-gan"),
    data=DataConfig(name="mnist_5k"),
    optim=OptimConfig(
        name="adamw", peak_lr=2e-3, schedule="cosine", warmup_steps=100, ema_decay=0.995
    ),
    steps=3000,
    batch_size=64,
    eval_every=3000,
    eval_batch_size=50,
)
