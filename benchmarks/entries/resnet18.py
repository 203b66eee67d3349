"""The training step of the recipe digits-resnet's model."""

import numpy as np

from benchmarks import classifier
from benchmarks.entry import Entry
from zoo.models.resnet import ResNetConfig

CONFIG = ResNetConfig.resnet18_cifar().for_data((28, 28, 1), classifier.NUM_CLASSES)


def shape(quick: bool) -> tuple[int, int, int, int]:
    """Of the batch of images."""
    return (4, 8, 8, 1) if quick else (32, 28, 28, 1)


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Weights and a batch."""
    return classifier.prepare(CONFIG, classifier.images(shape(quick)))


def flax_twin():
    """Stock flax.nnx's class."""
    from benchmarks.twins.flax_models import ResNet

    return ResNet


def torch_twin():
    """PyTorch's class."""
    from benchmarks.twins.torch_models import ResNet

    return ResNet


ENTRY = Entry(
    name="resnet18",
    summary="A training step of ResNet-18 (CIFAR stem), 32 images of 28x28x1, Adam, float32.",
    unit="training step",
    prepare=prepare,
    flops=lambda quick: classifier.training_flops(CONFIG, shape(quick)),
    competitors=classifier.competitors(CONFIG, flax_twin, torch_twin),
    timed_per_turn=3,
    # Adam's first steps are the signs of gradients, of which the smallest are rounding noise.
    tolerance=1e-3,
)
