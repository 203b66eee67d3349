"""A small BERT finds who does what and where in commands to a house.

    python -m train run intents-srl

Each sentence comes with what it is about (its frame), and the network tags the words that fill the
roles. Whole templates are held out, so that the wordings of the test split are new.
"""

from train.config import CheckpointConfig, Recipe
from train.data import TaggedTextConfig
from train.optim import OptimConfig
from train.tasks.tagging import TaggingConfig
from zoo.models.bert import BERTConfig

RECIPE = Recipe(
    name="intents-srl",
    model=BERTConfig(context=32, num_layers=2, num_heads=4, dim=128, hidden_dim=256, pooled=False),
    task=TaggingConfig(),
    data=TaggedTextConfig(name="intents", frame="intent", tokenizer="word", max_tokens=32),
    optim=OptimConfig(
        name="adamw",
        peak_lr=1e-3,
        schedule="cosine",
        warmup_steps=100,
        weight_decay=0.01,
        clip_norm=1.0,
    ),
    checkpoint=CheckpointConfig(every=250),
    steps=1500,
    batch_size=64,
    eval_every=250,
    eval_batch_size=128,
)
