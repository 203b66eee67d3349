"""One LSTM layer, forwards and backwards, without an optimiser.

The value of a unit is a weighted sum of the outputs plus a number for each gradient, those of the
input, of both weights and of the bias, so that all of them must agree. The products alone show what
is left to gain: of a pass they are what XLA's libraries compute, and all else is ours.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import products
from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise

TORCH = "torch"
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
    """A function of (x, w_x, w_h, b) to outputs, differentiated and compiled."""

    def __init__(self, outputs: Callable[..., Any], arrays: Arrays):
        import jax
        import jax.numpy as jnp

        import kernels

        kernels.keep_freed_memory()  # as every run does
        self.arguments = [jnp.asarray(arrays[name]) for name in DIFFERENTIATED]
        self.weighting = jnp.asarray(arrays["weighting"])

        def loss(arguments, weighting):
            return jnp.vdot(outputs(*arguments), weighting)

        self.traced = jax.jit(jax.value_and_grad(loss)).trace(self.arguments, self.weighting)
        lowered = self.traced.lower()
        self.step = lowered.compile(compiler_options=kernels.compiler_options())

    def advance(self) -> list[float]:
        """Once forwards and backwards."""
        import jax

        loss, gradients = jax.block_until_ready(self.step(self.arguments, self.weighting))
        return [float(loss) + sum(first_of(np.asarray(gradient)) for gradient in gradients)]


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
    import jax.numpy as jnp

    import kernels

    lstm = kernels.best().lstm

    def outputs(x, w_x, w_h, b):
        zeros = jnp.zeros((x.shape[0], w_h.shape[0]))
        return lstm(x, zeros, zeros, w_x, w_h, b)[0]

    return Jax(outputs, arrays)


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
    summary="One LSTM layer forwards and backwards, 32 sequences of 128 steps, width 256, float32.",
    unit="pass",
    prepare=prepare,
    flops=flops,
    competitors={
        OURS: Competitor(build=_ours, what="kernels.best()"),
        "flax.nnx": Competitor(build=_flax, what="RNN of OptimizedLSTMCell, jax.jit"),
        TORCH: Competitor(build=Torch, requires=("torch",), what="nn.LSTM, eager"),
        products.ALONE: products.competitor(lambda arrays: _ours(arrays).traced.jaxpr),
    },
    timed_per_turn=3,
    promises=(
        Promise(text="at least level with torch.nn.LSTM", against=TORCH, at_least_ratio=1.0),
    ),
)
