"""One training step of a classifier with Adam, by us, by stock `flax.nnx`, by PyTorch.

What is classified is an image, or each token of a text: the next one is its class.

Every competitor repeats the step on one batch: logits, mean cross-entropy, gradient, Adam.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor

LEARNING_RATE = 1e-3
NUM_CLASSES = 10
WEIGHTS = "weights/"


def images(shape: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
    """A batch of random images of that shape with labels."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal(shape, np.float32)
    return {"inputs": inputs, "targets": rng.integers(0, NUM_CLASSES, shape[0], np.int32)}


def prepare(config: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our initial weights, by path, and the batch."""
    from flax import nnx

    import zoo

    model = zoo.build(config, rngs=nnx.Rngs(0))
    weights = {
        WEIGHTS + "/".join(map(str, path)): np.asarray(variable[...])
        for path, variable in nnx.to_flat_state(nnx.state(model))
    }
    return weights | batch


def training_flops(config: Any, inputs: Any) -> float:
    """Three times the forward pass: each product has two gradients of the same size."""
    from flax import nnx

    import zoo

    summary = zoo.summarize(zoo.build(config, rngs=nnx.Rngs(0)), inputs)
    return 3.0 * summary.flops


def competitors(
    config: Any, flax_twin: Callable[[], Any], torch_twin: Callable[[], Any], steps: int = 1
) -> dict[str, Competitor]:
    """The four ways; the twins are functions that import and give the classes.

    `steps` are taken before anything is waited for; PyTorch on a CPU always waits for each.
    """
    return {
        OURS: Competitor(build=lambda arrays: Ours(config, arrays, steps), what="kernels.best()"),
        "flax.nnx": Competitor(
            build=lambda arrays: FlaxNnx(flax_twin(), config, arrays, steps),
            what="stock layers, nnx.jit",
        ),
        "torch": Competitor(
            build=lambda arrays: Torch(torch_twin(), config, arrays, compiled=False),
            requires=("torch",),
            what="eager",
        ),
        "torch.compile": Competitor(
            build=lambda arrays: Torch(torch_twin(), config, arrays, compiled=True),
            requires=("torch",),
            what="model and loss",
        ),
    }


class Ours:
    """The model of `zoo` with its kernels, compiled as `train` compiles its steps."""

    def __init__(self, config: Any, arrays: Arrays, steps: int = 1):
        import kernels
        from train.step import Program

        kernels.keep_freed_memory()  # as every run does
        self.batch = device_batch(arrays)
        self.steps = steps
        self.program = Program(_ours(config, arrays))
        self.program.compile_train(train_step, self.batch)

    def advance(self) -> list[float]:
        """Steps, each begun as soon as the one before it is on its way, as in `train.loop`."""
        import jax

        losses = [self.program.train(self.batch)["train/loss"] for _ in range(self.steps)]
        jax.block_until_ready(self.program.leaves)
        return [float(loss) for loss in losses]


class FlaxNnx:
    """Stock layers under `nnx.jit`, as Flax's documentation writes a training step."""

    def __init__(self, twin: Any, config: Any, arrays: Arrays, steps: int = 1):
        from flax import nnx

        self.steps = steps
        self.model = twin(config, nnx.Rngs(1))
        convert = getattr(self.model, "convert", dict)  # where the twin's names are not ours
        load_flax(self.model, convert(weights(arrays)))
        self.optimizer = _adam(self.model)
        self.batch = device_batch(arrays)
        self.step = nnx.jit(_update)

    def advance(self) -> list[float]:
        """Steps, each begun as soon as the one before it is on its way."""
        import jax
        from flax import nnx

        losses = [self.step(self.model, self.optimizer, self.batch) for _ in range(self.steps)]
        jax.block_until_ready(nnx.state((self.model, self.optimizer)))
        return [float(loss) for loss in losses]


class Torch:
    """PyTorch, eager or with model and loss through `torch.compile`."""

    def __init__(self, twin: Any, config: Any, arrays: Arrays, *, compiled: bool):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        model = twin(config)
        model.load(weights(arrays))
        self.optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        inputs = arrays["inputs"]
        if inputs.ndim == 4:  # images have their channels first
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
        self.inputs = torch.from_numpy(inputs)
        self.targets = torch.from_numpy(arrays["targets"].astype(np.int64).reshape(-1))

        def loss(inputs, targets):
            logits = model(inputs)
            return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets)

        self.loss = torch.compile(loss) if compiled else loss

    def advance(self) -> list[float]:
        """One step."""
        self.optimizer.zero_grad()
        loss = self.loss(self.inputs, self.targets)
        loss.backward()
        self.optimizer.step()
        return [loss.item()]


def traced(config: Any, arrays: Arrays) -> Any:
    """What JAX traces of our step, a jaxpr."""
    import jax

    from train.step import flat_step, form

    seen, leaves = form(_ours(config, arrays))
    return jax.make_jaxpr(flat_step(seen, train_step))(leaves, device_batch(arrays))


def _ours(config: Any, arrays: Arrays) -> dict[str, Any]:
    from flax import nnx

    import kernels
    import zoo

    model = zoo.build(config, rngs=nnx.Rngs(1), ops=kernels.best())
    load_flax(model, weights(arrays))
    return {"model": model, "optimizer": _adam(model)}


def train_step(objects: dict[str, Any], batch: Any, sync: Callable[[Any], Any]) -> dict[str, Any]:
    """The step in the form that `train.step.Program` compiles."""
    del sync  # one device
    return {"train/loss": _update(objects["model"], objects["optimizer"], batch)}


def _update(model: Any, optimizer: Any, batch: Any) -> Any:
    import optax
    from flax import nnx

    def loss_of(model):
        losses = optax.softmax_cross_entropy_with_integer_labels(
            model(batch["inputs"]), batch["targets"]
        )
        return losses.mean()

    loss, grads = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, grads)
    return loss


def _adam(model: Any) -> Any:
    import optax
    from flax import nnx

    return nnx.Optimizer(model, optax.adam(LEARNING_RATE), wrt=nnx.Param)


def device_batch(arrays: Arrays) -> dict[str, Any]:
    """The batch as JAX arrays."""
    import jax.numpy as jnp

    return {name: jnp.asarray(arrays[name]) for name in ("inputs", "targets")}


def weights(arrays: Arrays) -> Mapping[str, np.ndarray]:
    """The weights among the arrays, by path."""
    return {n.removeprefix(WEIGHTS): a for n, a in arrays.items() if n.startswith(WEIGHTS)}


def load_flax(model: Any, found: Mapping[str, np.ndarray]) -> None:
    """Copy the weights into a Flax model that has a variable at each of their paths."""
    import jax.numpy as jnp
    from flax import nnx

    variables = {"/".join(map(str, p)): v for p, v in nnx.to_flat_state(nnx.state(model))}
    if variables.keys() != found.keys():
        raise ValueError(f"weights do not fit: {sorted(variables.keys() ^ found.keys())}")
    flat = [
        (path, variable.replace(jnp.asarray(found["/".join(map(str, path))])))
        for path, variable in nnx.to_flat_state(nnx.state(model))
    ]
    nnx.update(model, nnx.from_flat_state(flat))
