"""What all tasks with one network and one optimiser share: their training step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train.errors import UserError
from train.gradient import Batch, Metrics, training_view, value_and_grad
from train.optim import Optimizer
from train.step import Objects
from train.sync import Sync
from train.task import SampleRequest, Task


class Network(Task):
    """One network, one loss, one optimiser; ``objects`` may hold statistics beside them."""

    def network(self, model: nnx.Module, rngs: nnx.Rngs) -> Objects:
        """A network, its optimiser, and the random streams of its steps."""
        return {
            "model": model,
            "optimizer": Optimizer(model, self.recipe.optim, self.recipe.steps),
            "rngs": nnx.Rngs(dropout=rngs.dropout(), augment=rngs.augment()),
        }

    def loss(
        self, model: nnx.Module, batch: Batch, key: jax.Array, sync: Sync = Sync()
    ) -> tuple[jax.Array, Metrics]:
        """The mean loss over a prepared batch, and other metrics of it.

        Args:
          model: in its training view.
          batch: what :meth:`prepare` gave, or a part of it.
          key: the same on all devices.
          sync: how to see the rest of the batch, where a loss is no plain mean over rows.
        """
        raise NotImplementedError

    def prepare(self, objects: Objects, batch: Batch) -> Batch:
        """The batch as the network takes it: augmented, masked or standardised on the device.

        Where devices share a batch it is that of all of them, whose rows may be mixed.
        """
        del objects
        return batch

    def train_step(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        model, optimizer = objects["model"], objects["optimizer"]
        pieces = self.recipe.num_microbatches
        lr = optimizer.learning_rate()
        metrics, grads = value_and_grad(
            partial(self.loss, sync=sync),
            training_view(model, sync),
            sync.whole(partial(self.prepare, objects), batch, pieces=pieces),
            objects["rngs"].dropout(),
            sync=sync,
            dtype=self.recipe.compute_dtype,
            num_microbatches=pieces,
        )
        optimizer.update(model, grads)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
        return {**metrics, "train/grad_norm": norm, "train/learning_rate": lr}

    def evaluated(self, objects: Objects) -> Objects:
        return {**objects, "model": objects["optimizer"].averaged(objects["model"])}

    def trained(self, objects: Objects) -> Any:
        """The network without dropout, with averaged weights if the optimiser keeps them."""
        model = self.evaluated(objects)["model"]
        return nnx.view(model, deterministic=True, raise_if_not_found=False)

    def held_out(self, request: SampleRequest) -> np.ndarray:
        """The indices of so many held-out examples, evenly spread over the evaluation split."""
        num = min(16, self.num_held_out) if request.num is None else request.num
        if request.prompt is not None:
            raise UserError(
                f"--prompt: recipe {self.recipe.name!r} is no language model; leave it out"
            )
        if not 1 <= num <= self.num_held_out:
            raise UserError(f"--num {num}: the evaluation split has {self.num_held_out} examples")
        return np.linspace(0, self.num_held_out - 1, num).astype(int)

    @property
    def num_held_out(self) -> int:
        """Examples of the evaluation split: its rows, where each is one."""
        return len(self.data.eval)
