"""One training program: NNX objects in, one compiled step out, no Python in the hot path.

The objects are split once into a static graph and a flat list of arrays. The compiled step takes
the arrays (donated: they are updated in place) and a batch, and gives the new arrays and the
metrics. Each step is compiled ahead of time, once for each shape that batches have, so a batch of
another shape is an error and never a silent recompilation.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import kernels
from train.arrays import on_first_device
from train.gradient import Batch, Metrics
from train.layouts import Layout, OneDevice, variables
from train.sync import Sync

Objects = dict[str, Any]
AnyBatch = Batch | dict[str, np.ndarray]  # on the device, or still on the host
TrainStep = Callable[[Objects, Batch, Sync], Metrics]
Shapes = tuple[tuple[int, ...], ...]
EvalStep = Callable[[Objects, Batch], dict[str, jax.Array]]


class Form(NamedTuple):
    """NNX objects without their arrays."""

    graphdef: Any
    structure: Any  # of their state

    def objects(self, leaves: Sequence[Any]) -> Objects:
        """The objects with these arrays."""
        return nnx.merge(self.graphdef, jax.tree.unflatten(self.structure, leaves))


def form(objects: Objects) -> tuple[Form, list[Any]]:
    """The form of objects, and their arrays."""
    graphdef, state = nnx.split(objects)
    leaves, structure = jax.tree.flatten(state)
    return Form(graphdef, structure), leaves


def flat_step(form: Form, step: TrainStep, sync: Sync = Sync()) -> Callable[..., Any]:
    """``step`` on arrays: ``(leaves, batch) -> (new leaves, metrics)``; what is compiled.

    Args:
      form: of the objects.
      step: it changes the objects that it is given.
      sync: how it sees the rows that are not on its device.
    """

    def run(leaves, batch):
        objects = form.objects(leaves)
        metrics = step(objects, batch, sync)
        return jax.tree.leaves(nnx.state(objects)), metrics

    return run


class Program:
    """The compiled training and evaluation steps over one set of objects.

    It owns a copy of their arrays, :attr:`placed` where they lie; :meth:`objects` gives the objects
    as they are now.

    Args:
      objects: models, optimisers and whatever else the steps change.
      layout: how the arrays lie on devices.
      pieces: into how many a training step cuts its batch.
    """

    def __init__(self, objects: Objects, layout: Layout = OneDevice(), pieces: int = 1):
        self.layout, self.pieces = layout, pieces
        self._form, leaves = form(objects)
        self._compiled, _ = form(layout.seen(objects))
        self.variables = variables(nnx.state(objects))
        self.paths = [variable.path for variable in self.variables]
        # Donation deletes buffers, and the caller may hold the same ones.
        self.leaves = [jax.numpy.copy(leaf) for leaf in leaves]
        self.compile_seconds = 0.0
        self._train: dict[Shapes, Any] = {}
        self._eval: Any = None

    @property
    def leaves(self) -> list[jax.Array]:
        """The arrays of the objects as they are now, as one device would have them."""
        return self.layout.plain(self.placed, self.variables)

    @leaves.setter
    def leaves(self, leaves: list[jax.Array]) -> None:
        self.placed = self.layout.place(leaves, self.variables)

    def put(self, batch: AnyBatch) -> AnyBatch:
        """A batch as :meth:`train` takes it, on its devices."""
        return self.layout.put(batch, self.pieces)

    def compile_train(self, step: TrainStep, *batches: AnyBatch) -> None:
        """Compiles ``step`` for batches of the shapes of each of ``batches``."""
        run = flat_step(self._compiled, step, self.layout.sync)
        for batch in map(self.put, batches):
            if (shapes := _shapes(batch)) not in self._train:
                self._train[shapes] = self._compile(self.layout.train(run, self.placed), batch)

    def compile_eval(self, step: EvalStep, batch: AnyBatch) -> None:
        """Compiles ``step`` for batches of the shapes of ``batch``; it changes no state."""
        seen = self._compiled
        function = self.layout.evaluate(lambda leaves, b: step(seen.objects(leaves), b))
        self._eval = self._compile(function, self.layout.put(batch))

    def _compile(self, function, batch):
        start = time.perf_counter()
        lowered = function.lower(self.placed, batch)
        compiled = lowered.compile(compiler_options=kernels.compiler_options())
        self.compile_seconds += time.perf_counter() - start
        return compiled

    def train(self, batch: AnyBatch) -> Metrics:
        """One training step on what :meth:`put` gave. Returns at once, while it is computed."""
        # The first step says what is wrong with a batch of none of the shapes.
        step = self._train.get(_shapes(batch)) or next(iter(self._train.values()))
        self.placed, metrics = step(self.placed, batch)
        return metrics

    def evaluate(self, batch: AnyBatch) -> dict[str, jax.Array]:
        """The evaluation step's outputs, one row an example."""
        return self.layout.outputs(self._eval(self.placed, self.layout.put(batch)))

    def objects(self) -> Objects:
        """The objects as they are now, on arrays of their own."""
        return self._form.objects([on_first_device(x) for x in self.leaves])

    def train_text(self) -> str:
        """The compiled training step as XLA prints it, for the first shape of batches."""
        return next(iter(self._train.values())).as_text()

    @property
    def train_flops(self) -> float | None:
        """Floating-point operations of a training step as XLA counts them, if it does.

        Where batches have several shapes: of the step that takes most.
        """
        costs = [step.cost_analysis() or {} for step in self._train.values()]
        return max((float(cost["flops"]) for cost in costs if "flops" in cost), default=None)


def _shapes(batch: AnyBatch) -> Shapes:
    return tuple(array.shape for array in batch.values())
