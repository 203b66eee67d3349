"""ResNet-18 with the CIFAR stem on 4,000 handwritten digits, about twelve minutes on two cores.

    python -m train run digits-resnet
    python -m train run digits-resnet --data tfds:cifar10 --data.resize 32 --task.augment.flip

The digits are scaled to 20x20 pixels, the size that they were drawn in before MNIST gave them a
margin of four on each side: half the arithmetic of 28x28. The second line trains on CIFAR-10 once
it is prepared; there, flips and a longer run pay.
"""

from train.config import CheckpointConfig, Recipe
from train.data import AugmentConfig, DataConfig
from train.optim import OptimConfig
from train.tasks.classification import ClassificationConfig
from zoo.models.resnet import ResNetConfig

RECIPE = Recipe(
    name="digits-resnet",
    model=ResNetConfig.resnet18_cifar(),
    task=ClassificationConfig(
        label_smoothing=0.1, augment=AugmentConfig(shift=2), baseline="digits-mlp"
    ),
    data=DataConfig(name="mnist_5k", resize=20),
    optim=OptimConfig(
        name="adamw", peak_lr=1e-3, schedule="cosine", warmup_steps=100, weight_decay=0.05
    ),
    checkpoint=CheckpointConfig(every=400),
    steps=2400,
    batch_size=16,
    eval_every=400,
)
