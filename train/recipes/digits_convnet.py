"""The documented ConvNet on 4,000 handwritten digits, about a minute on two cores.

    python -m train run digits-convnet

Two 3x3 convolutions of 32 and 64 channels, each followed by 2x2 max pooling, then 128 units and 10
classes. Small random shifts of each image stand in for the digits that the small set does not have.
"""

from train.config import Recipe
from train.data import AugmentConfig, DataConfig
from train.optim import OptimConfig
from train.tasks.classification import ClassificationConfig
from zoo.models.convnet import ConvNetConfig

RECIPE = Recipe(
    name="digits-convnet",
    model=ConvNetConfig(dropout_rate=0.2),
    task=ClassificationConfig(label_smoothing=0.1, augment=AugmentConfig(shift=2)),
    data=DataConfig(name="mnist_5k"),
    optim=OptimConfig(
        name="adamw", peak_lr=2e-3, schedule="cosine", weight_decay=1e-2, ema_decay=0.995
    ),
    steps=1500,
)
