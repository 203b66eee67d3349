"""A Wasserstein GAN with gradient penalty on handwritten digits.

    python -m train run digits-wgan-gp

    L_f = E_z[f(G(z))] - E_x[f(x)] + 10 E_x̂[(‖∇f(x̂)‖ - 1)²]        L_G = -E_z[f(G(z))]

Optimiser and five steps of the critic are the paper's (Gulrajani et al. 2017, algorithm 1), at
twice its rate, since the run is short; each step of the critic has 64 images of its own. The critic
has layer norm, where DCGAN has batch norm, which would mix the images that the penalty is of.
"""

from train.config import Recipe
from train.data import AugmentConfig, DataConfig
from train.optim import OptimConfig
from train.tasks.adversarial import AdversarialConfig
from zoo.models.gan import GANConfig

RECIPE = Recipe(
    name="digits-wgan-gp",
    model=GANConfig(norm="layer"),
    task=AdversarialConfig(
        loss="wasserstein",
        discriminator_steps=5,
        gradient_penalty=10.0,
        augment=AugmentConfig(shift=2),
        baseline="digits-gan",
    ),
    data=DataConfig(name="mnist_5k"),
    optim=OptimConfig(name="adam", peak_lr=2e-4, beta1=0.0, beta2=0.9, ema_decay=0.99),
    steps=2000,
    batch_size=320,
    eval_every=500,
    eval_batch_size=50,
)
