"""Word vectors from the English Bible and 20,000 descriptions of programs.

    python -m train run word2vec
    python -m train sample runs/word2vec --prompt king

Two million words, five passes. gensim learns from the same text with the same settings, which are
its own defaults, and both are compared with how related people find 353 pairs of words.
"""

from train.config import CheckpointConfig, Recipe
from train.data import WordsConfig
from train.optim import OptimConfig
from train.tasks.word_vectors import WordVectorsConfig
from zoo.models.word2vec import SkipGramConfig

RECIPE = Recipe(
    name="word2vec",
    model=SkipGramConfig(),
    task=WordVectorsConfig(),
    data=WordsConfig(
        name="bible+debian_synopsis",
        columns=("en", "description"),
        splits=("verses", "train+valid+test"),
    ),
    optim=OptimConfig(
        name="gradient-descent", peak_lr=0.025, schedule="linear", final_lr_fraction=0.004
    ),
    checkpoint=CheckpointConfig(every=400),
    steps=1815,  # five passes
    batch_size=64,
    eval_every=900,
    eval_batch_size=4096,
)
