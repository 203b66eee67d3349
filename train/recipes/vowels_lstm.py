"""Three LSTMs tell nine speakers by the way they say two vowels.

    python -m train run vowels-lstm

270 utterances of 7 to 29 steps train the stack of 64, 32 and 16; the nearest train series by
dynamic time warping is what it must beat.
"""

from train.config import CheckpointConfig, Recipe
from train.data import DataConfig
from train.optim import OptimConfig
from train.tasks.sequence_classification import SequenceClassificationConfig
from zoo.models.lstm import StackedLSTMConfig

RECIPE = Recipe(
    name="vowels-lstm",
    model=StackedLSTMConfig(dropout_rate=0.2),
    task=SequenceClassificationConfig(label_smoothing=0.1),
    data=DataConfig(name="japanese_vowels"),
    optim=OptimConfig(name="adam", peak_lr=1e-2, schedule="cosine", clip_norm=1.0),
    checkpoint=CheckpointConfig(every=200),
    steps=800,
    batch_size=30,
    eval_every=100,
    eval_batch_size=74,
)
