"""Layer norm forwards and backwards, over a batch of BERT's or GPT-2's width.

The value of a unit is the mean size of the outputs plus that of each gradient, of the input, the
scale and the bias, so that all of them must agree.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise

EPSILON = 1e-5
DIFFERENTIATED = ("x", "scale", "bias")
REFERENCE, FLAX, TORCH = "reference", "flax.nnx", "torch"


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """A batch `[B, T, D]`, scale and bias, and what comes back."""
    shape = (2, 4, 16) if quick else (32, 128, 768)
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal(shape, np.float32),
        "scale": 1 + 0.1 * rng.standard_normal(shape[-1], np.float32),
        "bias": 0.1 * rng.standard_normal(shape[-1], np.float32),
        "back": rng.standard_normal(shape, np.float32),
    }


class Jax:
    """A function of (x, scale, bias), differentiated and compiled."""

    def __init__(self, function: Callable[..., Any], arrays: Arrays):
        import jax
        import jax.numpy as jnp

        import kernels

        kernels.keep_freed_memory()  # as every run does
        self.arguments = [jnp.asarray(arrays[name]) for name in DIFFERENTIATED]
        self.back = jnp.asarray(arrays["back"])

        def work(arguments, back):
            y, pullback = jax.vjp(function, *arguments)
            return y, *pullback(back)

        lowered = jax.jit(work).lower(self.arguments, self.back)
        self.work = lowered.compile(compiler_options=kernels.compiler_options())

    def advance(self) -> list[float]:
        """Once forwards and backwards."""
        import jax

        found = jax.block_until_ready(self.work(self.arguments, self.back))
        return [sum(first_of(np.asarray(part)) for part in found)]


class Torch:
    """`torch.nn.functional.layer_norm`, eager."""

    def __init__(self, arrays: Arrays):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.arguments = [torch.from_numpy(arrays[n]).requires_grad_() for n in DIFFERENTIATED]
        self.back = torch.from_numpy(arrays["back"])

    def advance(self) -> list[float]:
        """Once forwards and backwards."""
        import torch

        x, scale, bias = self.arguments
        y = torch.nn.functional.layer_norm(x, scale.shape, scale, bias, EPSILON)
        found = y.detach(), *torch.autograd.grad(y, self.arguments, self.back)
        return [sum(first_of(part.numpy()) for part in found)]


def first_of(part: np.ndarray) -> float:
    """The mean size of the first row's numbers: a mean of all would take as long as the work."""
    return float(np.abs(part.reshape(-1, part.shape[-1])[0]).mean())


def _ours(arrays: Arrays) -> Jax:
    from kernels.layer_norm.xla import layer_norm

    return Jax(lambda x, scale, bias: layer_norm(x, scale, bias, epsilon=EPSILON), arrays)


def _reference(arrays: Arrays) -> Jax:
    from zoo.functional.norm import layer_norm

    return Jax(lambda x, scale, bias: layer_norm(x, scale, bias, epsilon=EPSILON), arrays)


def _flax(arrays: Arrays) -> Jax:
    import jax
    from flax import nnx

    norm = nnx.LayerNorm(arrays["x"].shape[-1], epsilon=EPSILON, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(norm)

    def layer_norm(x, scale, bias):
        own = jax.tree.map(lambda leaf: leaf, state)  # variables that this trace may change
        nnx.replace_by_pure_dict(own, {"scale": scale, "bias": bias})
        return nnx.merge(graphdef, own)(x)

    return Jax(layer_norm, arrays)


ENTRY = Entry(
    name="layer_norm",
    summary="Layer norm forwards and backwards, 32 sequences of 128 tokens, width 768, float32.",
    unit="pass",
    prepare=prepare,
    competitors={
        OURS: Competitor(build=_ours, what="kernels.layer_norm"),
        REFERENCE: Competitor(build=_reference, what="zoo.functional.norm, jax.jit"),
        FLAX: Competitor(build=_flax, what="LayerNorm, jax.jit"),
        TORCH: Competitor(build=Torch, requires=("torch",), what="layer_norm, eager"),
    },
    promises=(
        Promise(text="at least level with the reference", against=REFERENCE, at_least_ratio=1.0),
        Promise(text="at least level with flax.nnx.LayerNorm", against=FLAX, at_least_ratio=1.0),
    ),
)
