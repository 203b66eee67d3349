"""A variational autoencoder of handwritten digits: each is explained by 32 Gaussian numbers.

    python -m train run digits-vae

The baseline is what a linear decoder would reach with as many: probabilistic PCA, whose likelihood
is known exactly, where the bound is at most the likelihood.
"""

from train.config import Recipe
from train.data import AugmentConfig, DataConfig
from train.optim import OptimConfig
from train.tasks.variational import VariationalConfig
from zoo.models.vae import VAEConfig

RECIPE = Recipe(
    name="digits-vae",
    model=VAEConfig(),
    task=VariationalConfig(augment=AugmentConfig(shift=1)),
    data=DataConfig(name="mnist_5k"),
    optim=OptimConfig(name="adam", peak_lr=1e-3, schedule="cosine", ema_decay=0.99),
    steps=3000,
    eval_every=500,
    eval_batch_size=50,
)
