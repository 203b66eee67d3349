"""What generators of one network and one optimiser share."""

from flax import nnx

import zoo
from train.data.augment import check_sizes
from train.gradient import Batch, Metrics
from train.step import Objects
from train.sync import Sync
from train.tasks.generation import Gallery, Generation
from train.tasks.network import Network


class GenerativeNetwork(Network, Generation):
    """One network that learns from the images themselves how to make others."""

    summary_metric = "train/grad_norm"

    def build(self, rngs: nnx.Rngs) -> Objects:
        recipe = self.recipe
        config = recipe.model.for_data(self.data.input_shape, self.data.num_classes)
        check_sizes(recipe.task.augment, *self.data.input_shape[:2])
        model = zoo.build(config, rngs=rngs, ops=self.ops)
        return {**self.network(model, rngs), "gallery": Gallery(recipe.steps)}

    def prepare(self, objects: Objects, batch: Batch) -> Batch:
        images = self.augmented(objects["rngs"].augment(), self.from_pixels(batch["inputs"]))
        labels = self.labels(batch)
        return {"images": images} if labels is None else {"images": images, "labels": labels}

    def train_step(self, objects: Objects, batch: Batch, sync: Sync) -> Metrics:
        metrics = super().train_step(objects, batch, sync)
        step = objects["optimizer"].step[...]
        objects["gallery"].hang(step, lambda: self.fixed_images(objects))
        return metrics
