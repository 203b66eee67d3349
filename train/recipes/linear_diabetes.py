"""Linear regression on 354 patients by plain gradient descent, the whole training split a step.

    python -m train run linear-diabetes

The least-squares problem is convex and small, so gradient descent must arrive where the closed form
does: within 0.5 % of its RMSE on the held-out patients.
"""

from train.config import CheckpointConfig, Recipe
from train.data import DataConfig
from train.optim import OptimConfig
from train.tasks.regression import RegressionConfig
from zoo.models.linear import LinearRegressionConfig

RECIPE = Recipe(
    name="linear-diabetes",
    model=LinearRegressionConfig(),
    task=RegressionConfig(),
    data=DataConfig(name="diabetes"),
    optim=OptimConfig(name="gradient-descent", peak_lr=0.1),
    checkpoint=CheckpointConfig(every=500),
    steps=2000,
    batch_size=354,
    eval_every=500,
    eval_batch_size=88,
    log_every=20,
)
