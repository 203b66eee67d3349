"""A DCGAN on 4,000 handwritten digits, by the documented losses.

    python -m train run digits-gan

    L_D = -E_x[log D(x)] - E_z[log(1 - D(G(z)))]        L_G = -E_z[log D(G(z))]

Optimiser and rates are the paper's (Radford et al. 2016, section 4). Small shifts of all that the
discriminator sees, real or not, keep it from knowing the few training images by heart.
"""

from train.config import Recipe
from train.data import AugmentConfig, DataConfig
from train.optim import OptimConfig
from train.tasks.adversarial import AdversarialConfig
from zoo.models.gan import GANConfig

RECIPE = Recipe(
    name="digits-gan",
    model=GANConfig(),
    task=AdversarialConfig(augment=AugmentConfig(shift=2)),
    data=DataConfig(name="mnist_5k"),
    optim=OptimConfig(name="adam", peak_lr=2e-4, beta1=0.5, ema_decay=0.99),
    steps=4000,
    eval_every=500,
    eval_batch_size=50,
)
