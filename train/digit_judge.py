"""The judge of generated digits: the `digits-convnet` that was recorded, with fixed weights.

What its last layer sees of an image, 128 numbers, makes two digits comparable that share no pixel.
*digit-FID* is the Fréchet distance of such features of real and of generated digits. It is not FID,
whose features are those of a network that has seen photographs: only compare digit-FIDs with each
other, and only those of equal numbers of images.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Num, UInt8
from safetensors.numpy import load

import zoo
from train.data import embedded
from zoo.layers import Standardize
from zoo.models.convnet import ConvNetConfig

WEIGHTS = "digits_convnet.safetensors"
IMAGE_SHAPE = (28, 28, 1)
CLASSES = tuple("0123456789")
NUM_CLASSES = len(CLASSES)
CHUNK = 500  # images that are looked at together


class DigitJudge:
    """Sees what a classifier sees in digits.

    Raises:
      UserError: the weights are not those that were released.
    """

    def __init__(self, ops: zoo.Ops):
        weights = load(embedded.read_bytes(WEIGHTS))
        self.standardize = Standardize(weights["standardize.mean"], weights["standardize.std"])
        model = zoo.build(ConvNetConfig(), rngs=nnx.Rngs(0), ops=ops)
        for path, variable in nnx.to_flat_state(nnx.state(model)):
            variable[...] = jnp.asarray(weights[".".join(map(str, ("model", *path)))])
        self.model = model

    def __call__(
        self, images: Num[Array, "B 28 28 1"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B 10"]]:
        """Features and the probabilities of the classes; pixels are 0 (black) to 255."""
        features = self.model.features(self.standardize(images))
        return features, jax.nn.softmax(self.model.classifier(features))

    def features(self, images: UInt8[np.ndarray, "N 28 28 1"]) -> Float[np.ndarray, "N D"]:
        """The features of images on the host."""
        look = jax.jit(lambda chunk: self(chunk)[0])
        chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
        return np.concatenate([np.asarray(look(chunk)) for chunk in chunks])
