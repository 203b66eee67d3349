"""The training step of the recipe digits-convnet's model."""

import numpy as np

from benchmarks import classifier
from benchmarks.entry import Entry
from zoo.models.convnet import ConvNetConfig

CONFIG = ConvNetConfig.convnet_32_64()


def shape(quick: bool) -> tuple[int, int, int, int]:
    """Of the batch of images."""
    return (8 if quick else 64, 28, 28, 1)


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Weights and a batch."""
    return classifier.prepare(CONFIG, classifier.images(shape(quick)))


def _flax():
    from benchmarks.twins.flax_models import ConvNet

    return ConvNet


def _torch():
    from benchmarks.twins.torch_models import ConvNet

    return ConvNet


ENTRY = Entry(
    name="convnet",
    summary="A training step of the 32-64 ConvNet, 64 images of 28x28x1, Adam, float32.",
    unit="training step",
    prepare=prepare,
    flops=lambda quick: classifier.training_flops(CONFIG, shape(quick)),
    competitors=classifier.competitors(CONFIG, _flax, _torch),
    timed_per_turn=5,
)
