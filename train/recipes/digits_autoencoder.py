"""A convolutional autoencoder: handwritten digits through a code of 32 numbers and back.

    python -m train run digits-autoencoder

Its error must be at most 0.8 times that of as many principal components, the best linear code.
`--task.noise 0.3` feeds it with noise that it has to take away.
"""

from train.config import Recipe
from train.data import AugmentConfig, DataConfig
from train.optim import OptimConfig
from train.tasks.reconstruction import ReconstructionConfig
from zoo.models.autoencoder import AutoencoderConfig

RECIPE = Recipe(
    name="digits-autoencoder",
    model=AutoencoderConfig(),
    task=ReconstructionConfig(augment=AugmentConfig(shift=1)),
    data=DataConfig(name="mnist_5k"),
    optim=OptimConfig(name="adam", peak_lr=2e-3, schedule="cosine"),
    steps=2000,
    eval_every=200,
)
