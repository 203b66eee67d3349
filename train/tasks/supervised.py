"""What classification and regression share: one model, one optimiser, standardised inputs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import zoo
from train.gradient import Batch
from train.step import Objects
from train.tasks.network import Network
from zoo.layers import Standardize


class Supervised(Network):
    """Learns targets from inputs with one network."""

    num_outputs: int

    def build(self, rngs: nnx.Rngs) -> Objects:
        config = self.recipe.model.for_data(self.data.input_shape, self.num_outputs)
        standardize = Standardize(self.data.mean, self.data.std)
        model = zoo.build(config, rngs=rngs, ops=self.ops)
        return {**self.network(model, rngs), "standardize": standardize}

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """The batch as it is; tasks with augmentation override this."""
        return batch

    def prepare(self, objects: Objects, batch: Batch) -> Batch:
        batch = self.augment(objects["rngs"].augment(), batch)
        return {**batch, "inputs": self.standardized(objects, batch["inputs"])}

    def standardized(self, objects: Objects, inputs: jax.Array) -> jax.Array:
        """Inputs with mean 0 and variance 1 over the training split, in the compute dtype."""
        return objects["standardize"](inputs).astype(self.recipe.compute_dtype)

    def forward(self, objects: Objects, query: Any) -> jax.Array:
        """The network's float32 outputs on raw inputs: no dropout, averaged weights if kept."""
        outputs = self.answer(self.trained(objects), self.standardized(objects, query))
        return outputs.astype(jnp.float32)

    def answer(self, model: Any, query: Any, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The network's outputs on a standardised query."""
        return model(query, rngs=rngs)
