"""A Transformer that sums up the description of a program in one line.

    python -m train run synopsis
    python -m train sample runs/synopsis --num 5

18,000 Debian packages, each with the line that its maintainer wrote; all packages of one source are
in one split. The first words of a description are a strong summary: they are what it must beat. The
words of a summary stand in the text, many of them in no other, so the decoder may copy.
"""

import dataclasses

from train.config import CheckpointConfig, Recipe
from train.data import PairedTextConfig
from train.optim import OptimConfig
from train.tasks.sequence_to_sequence import SequenceToSequenceConfig
from zoo.models.transformer import TransformerConfig

RECIPE = Recipe(
    name="synopsis",
    model=dataclasses.replace(
        TransformerConfig.nano(), pre_norm=True, pointer=True, dropout_rate=0.1
    ),
    task=SequenceToSequenceConfig(label_smoothing=0.0, baseline="first-words"),
    data=PairedTextConfig(
        name="debian_synopsis", vocab_size=8000, max_tokens=64, max_target_tokens=32
    ),
    optim=OptimConfig(
        name="adam",
        peak_lr=3e-3,
        schedule="cosine",
        warmup_steps=100,
        beta2=0.98,
        clip_norm=1.0,
    ),
    checkpoint=CheckpointConfig(every=400),
    steps=1600,
    batch_size=64,
    eval_every=800,
    eval_batch_size=64,
)
