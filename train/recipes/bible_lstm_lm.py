"""A character LSTM on the English Bible.

    python -m train run bible-lstm-lm
    python -m train sample runs/bible-lstm-lm --prompt "In the beginning"

Two LSTMs of 256 read the same text as bible-gpt, in windows of 128 characters, and must beat the
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
    task=LanguageModelConfig(window=128),
    data=bible_gpt.RECIPE.data,
    optim=OptimConfig(
        name="adam", peak_lr=4e-3, schedule="cosine", warmup_steps=50, beta2=0.99, clip_norm=1.0
    ),
    checkpoint=CheckpointConfig(every=200),
    steps=800,
    batch_size=32,
    eval_every=400,
    eval_batch_size=64,
)
