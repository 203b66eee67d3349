"""What a training step costs beyond the device's own work: a deep model of tiny width.

A training loop begins a step while the one before it is computed, and so do the competitors here.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks import classifier
from benchmarks.entries.resnet18 import flax_twin, torch_twin
from benchmarks.entry import Arrays, Competitor, Entry, Promise
from zoo.models.resnet import ResNetConfig

CONFIG = ResNetConfig(
    stage_sizes=(3, 3, 3, 3), width=4, stem="cifar", in_channels=1, num_classes=10
)
STEPS = 100  # taken before anything is waited for
DEVICE = "device"


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Weights and a batch; it is tiny anyway."""
    del quick
    return classifier.prepare(CONFIG, classifier.images((2, 8, 8, 1)))


class Device:
    """Our step many times inside one program: what it takes when Python is never asked."""

    def __init__(self, arrays: Arrays):
        import jax
        from flax import nnx

        ours = classifier.Ours(CONFIG, arrays)
        graphdef, self.state = nnx.split(ours.program.objects())

        def step(state, _):
            objects = nnx.merge(graphdef, state)
            metrics = classifier.train_step(objects, ours.batch, lambda tree: tree)
            return nnx.state(objects), metrics["train/loss"]

        self.run = jax.jit(lambda state: jax.lax.scan(step, state, length=STEPS))

    def advance(self) -> Sequence[float]:
        """All steps of one program."""
        import jax

        self.state, losses = jax.block_until_ready(self.run(self.state))
        return np.asarray(losses).tolist()


ENTRY = Entry(
    name="dispatch",
    summary="A training step of a 12-block ResNet of width 4, 2 images of 8x8x1, Adam, float32.",
    unit="training step",
    prepare=prepare,
    competitors=classifier.competitors(CONFIG, flax_twin, torch_twin, STEPS)
    | {
        DEVICE: Competitor(
            build=Device, what=f"ours, {STEPS} steps in one program: no Python between them"
        )
    },
    timed_per_turn=STEPS,
    tolerance=1e-3,  # as in resnet18
    promises=(
        Promise(
            text="a step of a 12-block model takes at most 1 ms more than on the device alone",
            against=DEVICE,
            at_most_ms_above=1.0,
        ),
    ),
)
