"""A character GPT on the English Bible, in a minute or two on two cores.

    python -m train run bible-gpt
    python -m train sample runs/bible-gpt --prompt "In the beginning"

The smallest setting of nanoGPT: 4 layers, 4 heads, 128 wide, 64 characters of context, 2,000 steps
of 12 windows. The last tenth of the verses is held out; a 4-gram model is what it must beat, and
Muon is what beats it in so few steps.
"""

from train.config import CheckpointConfig, Recipe
from train.data import TextConfig
from train.optim import OptimConfig
from train.tasks.language_model import LanguageModelConfig
from zoo.models.gpt import GPTConfig

RECIPE = Recipe(
    name="bible-gpt",
    model=GPTConfig.nano(),
    task=LanguageModelConfig(),
    data=TextConfig(
        name="bible",
        column="en",
        train_split="verses[:90%]",
        eval_split="verses[90%:]",
        tokenizer="character",
    ),
    optim=OptimConfig(
        name="muon",
        peak_lr=1e-2,
        momentum=0.95,
        schedule="cosine",
        warmup_steps=100,
        final_lr_fraction=0.1,
        beta2=0.99,
        weight_decay=0.1,
        clip_norm=1.0,
    ),
    checkpoint=CheckpointConfig(every=500),
    steps=2000,
    batch_size=12,
    eval_every=1000,
    eval_batch_size=128,
)
