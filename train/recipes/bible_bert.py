"""A small BERT that learns English from the hidden words of the Bible.

    python -m train run bible-bert
    python -m train sample runs/bible-bert --prompt "In the beginning God [MASK] the heavens"

Windows of 32 pieces of words, 15 % of them hidden; eight books are held out whole. It must be two
nats a word below what the frequencies of words alone give. The windows are short because a BERT
first has to find out that words have to do with their neighbours, and among few places it does so
much sooner (Devlin et al. 2019 take long windows for the last tenth of the steps, appendix A.2).
"""

import dataclasses

from train.config import CheckpointConfig, Recipe
from train.data import TextConfig
from train.optim import OptimConfig
from train.tasks.masked_words import MaskedWordsConfig
from zoo.models.bert import BERTConfig

RECIPE = Recipe(
    name="bible-bert",
    model=dataclasses.replace(BERTConfig.nano(), context=32, dropout_rate=0.0),
    task=MaskedWordsConfig(window=32),
    data=TextConfig(name="bible", column="en", tokenizer="wordpiece"),
    optim=OptimConfig(
        name="muon",
        peak_lr=1e-2,
        momentum=0.95,
        schedule="cosine",
        warmup_steps=100,
        final_lr_fraction=0.1,
        beta2=0.98,
        weight_decay=0.01,
        clip_norm=1.0,
    ),
    checkpoint=CheckpointConfig(every=250),
    steps=1500,
    batch_size=128,
    eval_every=250,
    eval_batch_size=128,
)
