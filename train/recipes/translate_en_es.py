"""A Transformer that learns Spanish from 27,000 verses of the English and the Spanish Bible.

    python -m train run translate-en-es
    python -m train sample runs/translate-en-es --prompt "In the beginning was the word."

Whole books are held out. One table of 4,000 pieces of words serves both languages: with so little
text, few and frequent pieces are learnt better than many rare ones (Sennrich and Zhang 2019). The
LSTM encoder-decoder of translate-lstm, trained in the same run, is what it must beat.
"""

import dataclasses

from train.config import CheckpointConfig, Recipe
from train.data import PairedTextConfig
from train.optim import OptimConfig
from train.tasks.sequence_to_sequence import SequenceToSequenceConfig
from zoo.models.transformer import TransformerConfig

RECIPE = Recipe(
    name="translate-en-es",
    model=dataclasses.replace(TransformerConfig.nano(), pre_norm=True, dropout_rate=0.1),
    task=SequenceToSequenceConfig(baseline="translate-lstm"),
    data=PairedTextConfig(
        name="bible", column="en", target="es", vocab_size=4000, max_tokens=96, max_target_tokens=96
    ),
    optim=OptimConfig(
        name="muon",
        peak_lr=2e-2,
        momentum=0.95,
        schedule="cosine",
        warmup_steps=200,
        beta2=0.98,
        clip_norm=1.0,
    ),
    checkpoint=CheckpointConfig(every=350),
    steps=1400,
    batch_size=64,
    eval_every=700,
    eval_batch_size=64,
)
