"""A multilayer perceptron on 4,000 handwritten digits.

    python -m train run digits-mlp

It sees pixels without their places; the accuracy it reaches is what convolution must beat.
"""

from train.config import Recipe
from train.data import DataConfig
from train.optim import OptimConfig
from train.tasks.classification import ClassificationConfig
from zoo.models.mlp import MLPConfig

RECIPE = Recipe(
    name="digits-mlp",
    model=MLPConfig(dropout_rate=0.2),
    task=ClassificationConfig(),
    data=DataConfig(name="mnist_5k"),
    optim=OptimConfig(name="adamw", peak_lr=1e-3, schedule="cosine", weight_decay=1e-2),
    steps=1000,
)
