"""Logistic regression on 456 tumours, benign or malignant, with Adam, all of them in every step.

    python -m train run logistic-cancer

A step over 456 rows of 30 numbers costs no more than one over 64, and has no noise. Accuracy on
the held-out tumours must come within 0.01 of scikit-learn's solver.
"""

from train.config import CheckpointConfig, Recipe
from train.data import DataConfig
from train.optim import OptimConfig
from train.tasks.classification import ClassificationConfig
from zoo.models.linear import LogisticRegressionConfig

RECIPE = Recipe(
    name="logistic-cancer",
    model=LogisticRegressionConfig(),
    task=ClassificationConfig(),
    data=DataConfig(name="breast_cancer"),
    optim=OptimConfig(name="adam", peak_lr=1e-2, schedule="cosine"),
    checkpoint=CheckpointConfig(every=250),
    steps=500,
    batch_size=456,
    eval_every=100,
    eval_batch_size=113,
)
