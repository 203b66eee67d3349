"""A DCGAN that is told the class: `sample --label 7` draws sevens.

    python -m train run digits-cgan

The generator reads a vector of the class beside the noise, the discriminator's logit has a term of
the class (Miyato & Koyama 2018); all else is digits-gan, whose run is the baseline.
"""

import dataclasses

from train.config import Recipe
from train.recipes.digits_gan import RECIPE as PLAIN
from zoo.models.gan import GANConfig

RECIPE: Recipe = dataclasses.replace(
    PLAIN,
    name="digits-cgan",
    model=GANConfig(num_classes=10),
    task=dataclasses.replace(PLAIN.task, baseline="digits-gan"),
)
