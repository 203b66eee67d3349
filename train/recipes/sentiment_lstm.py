"""An LSTM that reads reviews word by word and says whether they are kind.

    python -m train run sentiment-lstm
    python -m train sample runs/sentiment-lstm --prompt "a dull film that I loved"

Embedding, one LSTM of 100, one logit, on 10,000 sentences of film and product reviews; held against
a linear classifier of their words and pairs of words.
"""

from train.config import CheckpointConfig, Recipe
from train.data import LabelledTextConfig
from train.optim import OptimConfig
from train.tasks.text_classification import TextClassificationConfig
from zoo.models.lstm import LSTMClassifierConfig

RECIPE = Recipe(
    name="sentiment-lstm",
    model=LSTMClassifierConfig(dropout_rate=0.5),
    task=TextClassificationConfig(),
    data=LabelledTextConfig(name="vader", tokenizer="word", vocab_size=10_000, max_tokens=64),
    optim=OptimConfig(name="adam", peak_lr=2e-3, schedule="cosine", clip_norm=1.0),
    checkpoint=CheckpointConfig(every=200),
    steps=1600,
    batch_size=64,
    eval_every=200,
    eval_batch_size=128,
)
