"""The output layer of a language model and its loss, forwards and backwards.

The value of a unit is the mean loss plus a number for each gradient, that of the last vectors and
that of the kernel, so that all of them must agree. What ours is for is memory, less than a quarter
of optax's at this vocabulary, which `tests/kernels/test_softmax_cross_entropy.py` shows.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise
from kernels.softmax_cross_entropy.specs import SPECS

SPEC = SPECS["vocab-32k"]
OPTAX, TORCH = "optax", "torch"


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """The last vectors of a batch's tokens, the kernel `[D, V]`, and the tokens that follow."""
    rows, dim = (32, 16) if quick else (SPEC.rows, SPEC.dim)
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((rows, dim), np.float32),
        "kernel": dim**-0.5 * rng.standard_normal((dim, SPEC.vocab), np.float32),
        "targets": rng.integers(SPEC.vocab, size=rows),
    }


def flops(quick: bool) -> float:
    """The product that gives the logits, and its two gradients of the same size."""
    rows, dim = prepare(quick)["x"].shape
    return 3.0 * 2 * rows * dim * SPEC.vocab


class Jax:
    """`function(x, kernel, targets)` to losses, differentiated and compiled."""

    def __init__(self, function: Callable[..., Any], arrays: Arrays):
        import jax
        import jax.numpy as jnp

        import kernels

        kernels.keep_freed_memory()  # as every run does
        self.arguments = jnp.asarray(arrays["x"]), jnp.asarray(arrays["kernel"])
        self.targets = jnp.asarray(arrays["targets"], jnp.int32)

        def loss(arguments, targets):
            return jnp.sum(function(*arguments, targets))

        step = jax.jit(jax.value_and_grad(loss)).lower(self.arguments, self.targets)
        self.step = step.compile(compiler_options=kernels.compiler_options())

    def advance(self) -> list[float]:
        """Once forwards and backwards."""
        import jax

        loss, gradients = jax.block_until_ready(self.step(self.arguments, self.targets))
        return [value(float(loss), [np.asarray(gradient) for gradient in gradients])]


class Torch:
    """`nn.functional.cross_entropy` of a matrix product, eager."""

    def __init__(self, arrays: Arrays):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.x, self.kernel = (
            torch.from_numpy(arrays[name]).requires_grad_() for name in ("x", "kernel")
        )
        self.targets = torch.from_numpy(arrays["targets"])

    def advance(self) -> list[float]:
        """Once forwards and backwards."""
        import torch

        logits = self.x @ self.kernel
        loss = torch.nn.functional.cross_entropy(logits, self.targets, reduction="sum")
        gradients = torch.autograd.grad(loss, (self.x, self.kernel))
        return [value(loss.item(), [gradient.numpy() for gradient in gradients])]


def value(loss: float, gradients: list[np.ndarray]) -> float:
    """The mean of a sum of losses, and the sizes of the first 64 numbers of each gradient."""
    first = sum(float(np.abs(gradient.reshape(-1)[:64]).sum()) for gradient in gradients)
    return loss / len(gradients[0]) + first


def _ours(arrays: Arrays) -> Jax:
    import kernels

    return Jax(kernels.best().linear_cross_entropy, arrays)


def _optax(arrays: Arrays) -> Jax:
    import optax

    def losses(x, kernel, targets):
        return optax.softmax_cross_entropy_with_integer_labels(x @ kernel, targets)

    return Jax(losses, arrays)


ENTRY = Entry(
    name="cross_entropy",
    summary="Output layer and cross-entropy of 1,024 tokens of width 256 over 32,000 words.",
    unit="forward and backward pass",
    prepare=prepare,
    flops=flops,
    competitors={
        OURS: Competitor(build=_ours, what="kernels.best()"),
        OPTAX: Competitor(
            build=_optax, what="softmax_cross_entropy_with_integer_labels of x @ kernel, jax.jit"
        ),
        TORCH: Competitor(
            build=Torch, requires=("torch",), what="cross_entropy of x @ kernel, eager"
        ),
    },
    promises=(Promise(text="at least level with optax", against=OPTAX, at_least_ratio=1.0),),
)
