"""One LSTM layer, forwards and backwards, without an optimiser.

The value of a unit is a weighted sum of the outputs plus a number for each gradient, those of the
input, of both weights and of the bias, so that all of them must agree. The products alone show what
is left to gain: of a pass they are what XLA's libraries compute, and all else is ours.

A step's product is small, and XLA gives it one core: to wake another takes as long as half of it.
So each core is a device here, which goes over its own part of the batch, and the gradients of the
weights are added up once at the end. On one device the other cores wait while the loops run.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import products
from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise

TORCH = "torch"
ONE_DEVICE = "one device"
DIFFERENTIATED = ("x", "w_x", "w_h", "b")


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Weights, a batch of sequences, and what multiplies the outputs to make a loss."""
    batch, steps, dim = (4, 8, 16) if quick else (32, 128, 256)
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return scale * rng.standard_normal(shape, np.float32)

    return {
        "x": normal(batch, steps, dim),
        "w_x": normal(dim, 4 * dim, scale=dim**-0.5),
        "w_h": normal(dim, 4 * dim, scale=dim**-0.5),
        "b": normal(4 * dim, scale=0.1),
        "weighting": normal(batch, steps, dim),
    }


def flops(quick: bool) -> float:
    """Two products a step, each with two gradients of the same size."""
    batch, steps, dim = prepare(quick)["x"].shape
    return 3.0 * 2 * batch * steps * (2 * dim) * (4 * dim)


class Jax:
    """A function of (x, w_x, w_h, b) to outputs, differentiated and compiled.

    On several devices each has a part of the batch, and the weights.
    """

    def __init__(self, outputs: Callable[..., Any], arrays: Arrays, devices: int = 1):
        import jax
        import jax.numpy as jnp

        import kernels

        kernels.keep_freed_memory()  # as every run does

        def loss(arguments, weighting):
            return jnp.vdot(outputs(*arguments), weighting)

        step, arguments = jax.value_and_grad(loss), [arrays[name] for name in DIFFERENTIATED]
        if devices > 1:
            step, places = _shared(step, jax.make_mesh((devices,), ("data",)))
        else:
            places = None
        self.inputs = jax.device_put((arguments, arrays["weighting"]), places)
        self.traced = jax.jit(step).trace(*self.inputs)
        lowered = self.traced.lower()
        self.step = lowered.compile(compiler_options=kernels.compiler_options())

    def advance(self) -> list[float]:
        """Once forwards and backwards."""
        import jax

        loss, gradients = jax.block_until_ready(self.step(*self.inputs))
        first = (np.asarray(gradient.addressable_data(0)) for gradient in gradients)
        return [float(loss) + sum(map(first_of, first))]


def _shared(step: Callable[..., Any], mesh: Any) -> tuple[Callable[..., Any], Any]:
    """The step with the batch shared by the devices of a mesh, and where its inputs belong."""
    import jax
    from jax.flatten_util import ravel_pytree
    from jax.sharding import NamedSharding, PartitionSpec

    shared, whole = PartitionSpec("data"), PartitionSpec()
    arguments = [shared, *(whole for _ in DIFFERENTIATED[1:])]

    def on_each(arguments, weighting):
        loss, (dx, *weights) = step(arguments, weighting)
        summands, parts_of = ravel_pytree((loss, weights))  # one sum: a device waits for it once
        loss, weights = parts_of(jax.lax.psum(summands, "data"))
        return loss, [dx, *weights]

    specs = (arguments, shared)
    shared_step = jax.shard_map(
        on_each, mesh=mesh, in_specs=specs, out_specs=(whole, arguments), check_vma=False
    )
    return shared_step, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


class Torch:
    """`torch.nn.LSTM`, eager, with our weights; its second bias is 0."""

    def __init__(self, arrays: Arrays):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        dim = arrays["x"].shape[-1]
        self.lstm = torch.nn.LSTM(dim, dim, batch_first=True)
        w_x, w_h, b, _ = self.lstm.all_weights[0]
        with torch.no_grad():
            for parameter in self.lstm.parameters():
                parameter.zero_()
            for parameter, name in ((w_x, "w_x"), (w_h, "w_h"), (b, "b")):
                parameter.copy_(torch.from_numpy(arrays[name]).T)
        self.x = torch.from_numpy(arrays["x"]).requires_grad_()
        self.weighting = torch.from_numpy(arrays["weighting"])
        self.differentiated = [self.x, w_x, w_h, b]

    def advance(self) -> list[float]:
        """Once forwards and backwards."""
        self.lstm.zero_grad()
        self.x.grad = None
        loss = (self.lstm(self.x)[0] * self.weighting).sum()
        loss.backward()
        gradients = [t.grad.numpy() for t in self.differentiated if t.grad is not None]
        gradients[1:3] = [gradient.T for gradient in gradients[1:3]]
        return [loss.item() + sum(map(first_of, gradients))]


def first_of(gradient: np.ndarray) -> float:
    """The mean of the squares of the first 64 numbers: cheap, and wrong as soon as those are."""
    return float(np.mean(np.square(gradient.reshape(-1)[:64])))


def _ours(arrays: Arrays) -> Jax:
    return _best(arrays, math.gcd(len(arrays["x"]), len(os.sched_getaffinity(0))))


def _one_device(arrays: Arrays) -> Jax:
    return _best(arrays, 1)


def _best(arrays: Arrays, devices: int) -> Jax:
    import jax
    import jax.numpy as jnp

    import kernels

    jax.config.update("jax_num_cpu_devices", devices)  # before JAX looks for them
    lstm = kernels.best().lstm

    def outputs(x, w_x, w_h, b):
        zeros = jnp.zeros((x.shape[0], w_h.shape[0]))
        return lstm(x, zeros, zeros, w_x, w_h, b)[0]

    return Jax(outputs, arrays, devices)


def _flax(arrays: Arrays) -> Jax:
    import jax
    from flax import nnx

    dim = arrays["x"].shape[-1]
    cell = nnx.OptimizedLSTMCell(dim, dim, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(nnx.RNN(cell, rngs=nnx.Rngs(0)))

    def outputs(x, w_x, w_h, b):
        own = jax.tree.map(lambda leaf: leaf, state)  # variables that this trace may change
        weights = {"dense_i": {"kernel": w_x}, "dense_h": {"kernel": w_h, "bias": b}}
        nnx.replace_by_pure_dict(own, {"cell": weights})
        return nnx.merge(graphdef, own)(x)

    return Jax(outputs, arrays)


# Not here: torch.compile, whose compiler hands `nn.LSTM` back to the eager code.
ENTRY = Entry(
    name="lstm",
    summary="One LSTM layer forwards and backwards, 32 sequences of 128 steps, width 256, float32, "
    "ours with a device a core.",
    unit="pass",
    prepare=prepare,
    flops=flops,
    competitors={
        OURS: Competitor(build=_ours, what="kernels.best(), a device a core"),
        ONE_DEVICE: Competitor(build=_one_device, what="ours, jax.jit"),
        "flax.nnx": Competitor(build=_flax, what="RNN of OptimizedLSTMCell, jax.jit"),
        TORCH: Competitor(build=Torch, requires=("torch",), what="nn.LSTM, eager"),
        products.ALONE: products.competitor(lambda arrays: _one_device(arrays).traced.jaxpr),
    },
    timed_per_turn=3,
    promises=(
        Promise(
            text="at least level with torch.nn.LSTM, with a device a core",
            against=TORCH,
            at_least_ratio=1.0,
        ),
        Promise(
            text="at least level with torch.nn.LSTM, on one device",
            of=ONE_DEVICE,
            against=TORCH,
            at_least_ratio=1.0,
        ),
    ),
)
