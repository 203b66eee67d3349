"""ResNet-18 with the CIFAR stem on 4,000 handwritten digits, about five minutes on two cores.

    python -m train run digits-resnet
    python -m train run digits-resnet --data tfds:cifar10

The second line trains on CIFAR-10 once it is prepared; there, flips and a longer run pay.
"""

from train.config import CheckpointConfig, Recipe
from train.data import AugmentConfig, DataConfig
from train.optim import OptimConfig
from train.tasks.classification import ClassificationConfig
from zoo.models.resnet import ResNetConfig

RECIPE = Recipe(
    name="digits-resnet",
    model=ResNetConfig.resnet18_cifar(),
    task=ClassificationConfig(augment=AugmentConfig(shift=2), baseline="digits-mlp"),
    data=DataConfig(name="mnist_5k"),
    optim=OptimConfig(
        name="momentum", peak_lr=0.05, schedule="cosine", warmup_steps=50, clip_norm=5.0
    ),
    checkpoint=CheckpointConfig(every=100),
    steps=400,
    eval_every=100,
)
