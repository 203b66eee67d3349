"""A character LSTM on the English Bible.

    python -m train run bible-lstm-lm
    python -m train sample runs/bible-lstm-lm --prompt "In the beginning"

Two LSTMs of 256 read the same text as bible-gpt, in windows of 64 characters, and must beat the
same 4-gram model.
"""

from train.config import CheckpointConfig, Recipe
from train.optim import OptimConfig
from train.recipes import bible_gpt
from train.tasks.language_model import LanguageModelConfig
from zoo.models.lstm import LSTMLanguageModelConfig

RECIPE = Recipe(
    name="bible-lstm-lm",
    model=LSTMLanguageModelConfig.characters(),
    task=LanguageModelConfig(window=64),
    data=bible_gpt.RECIPE.data,
    optim=OptimConfig(
        name="muon",
        peak_lr=1e-2,
        momentum=0.95,
        schedule="cosine",
        warmup_steps=50,
        final_lr_fraction=0.05,
        beta2=0.99,
        clip_norm=1.0,
    ),
    checkpoint=CheckpointConfig(every=200),
    steps=1100,
    batch_size=32,
    eval_every=550,
    eval_batch_size=64,
)
