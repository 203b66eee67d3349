"""What classification and regression share: one model, one optimiser, standardised inputs."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo
from train.errors import UserError
from train.gradient import Batch, Metrics, Sync, value_and_grad
from train.optim import Optimizer
from train.step import Objects
from train.task import Task
from zoo.layers import Standardize


class Supervised(Task):
    """Learns targets from inputs with one network."""

    num_outputs: int

    def build(self, rngs: nnx.Rngs) -> Objects:
        recipe = self.recipe
        config = recipe.model.for_data(self.data.input_shape, self.num_outputs)
        model = zoo.build(config, rngs=rngs, ops=self.ops)
        return {
            "model": model,
            "standardize": Standardize(self.data.mean, self.data.std),
            "optimizer": Optimizer(model, recipe.optim, recipe.steps),
            "rngs": nnx.Rngs(dropout=rngs.dropout(), augment=rngs.augment()),
        }

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        """The mean loss over a batch of standardised inputs, and other metrics of it."""
        raise NotImplementedError

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """The batch as it is; tasks with augmentation override this."""
        return batch

    def train_step(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        model, optimizer = objects["model"], objects["optimizer"]
        lr = optimizer.learning_rate()
        batch = self.augment(objects["rngs"].augment(), batch)
        batch = {**batch, "inputs": self.standardized(objects, batch["inputs"])}
        metrics, grads = value_and_grad(
            self.loss,
            nnx.view(model, deterministic=False, sync=sync, raise_if_not_found=False),
            batch,
            objects["rngs"].dropout(),
            sync=sync,
            dtype=self.recipe.compute_dtype,
            num_microbatches=self.recipe.num_microbatches,
        )
        optimizer.update(model, grads)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
        return {**metrics, "train/grad_norm": norm, "train/learning_rate": lr}

    def standardized(self, objects: Objects, inputs: jax.Array) -> jax.Array:
        """Inputs with mean 0 and variance 1 over the training split, in the compute dtype."""
        return objects["standardize"](inputs).astype(self.recipe.compute_dtype)

    def forward(self, objects: Objects, inputs: jax.Array) -> jax.Array:
        """The network's float32 outputs on raw inputs: no dropout, averaged weights if kept."""
        model = objects["optimizer"].averaged(objects["model"])
        model = nnx.view(model, deterministic=True, raise_if_not_found=False)
        return model(self.standardized(objects, inputs)).astype(jnp.float32)

    def held_out(self, num: int) -> np.ndarray:
        """The indices of ``num`` held-out examples, evenly spread over the evaluation split."""
        if not 1 <= num <= len(self.data.eval):
            raise UserError(f"--num {num}: the evaluation split has {len(self.data.eval)} examples")
        return np.linspace(0, len(self.data.eval) - 1, num).astype(int)
