"""Attention forwards and backwards: a causal sequence of GPT-2's width, and a batch of BERT's.

The value of a unit has a number for the outputs of each layer and for each gradient, those of q, k
and v, so that all of them must agree.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise

JAX_NN, TORCH = "jax.nn", "torch"
PARTS = ("q", "k", "v", "back")


@dataclass(frozen=True)
class Layer:
    """One layer's self-attention over a batch of sequences."""

    batch: int
    tokens: int
    heads: int
    width: int
    causal: bool


LAYERS = {
    "gpt2-small": Layer(2, 1024, 12, 64, causal=True),
    "bert-base": Layer(4, 512, 12, 64, causal=False),
}


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Of each layer q, k, v and what comes back, `[B, T, N, H]`."""
    rng = np.random.default_rng(0)
    return {
        f"{name}/{part}": rng.standard_normal(shape(layer, quick), np.float32)
        for name, layer in LAYERS.items()
        for part in PARTS
    }


def shape(layer: Layer, quick: bool) -> tuple[int, int, int, int]:
    """A quick one has the fewest tokens for which our kernel is not the reference."""
    return (1, 256, 2, 16) if quick else (layer.batch, layer.tokens, layer.heads, layer.width)


def flops(quick: bool) -> float:
    """Two products of T by S by H for each head, each with two gradients of the same size."""
    total = 0.0
    for layer in LAYERS.values():
        batch, tokens, heads, width = shape(layer, quick)
        seen = tokens * (tokens + 1) / 2 if layer.causal else tokens**2
        total += 3 * 2 * 2 * batch * heads * seen * width
    return total


class Jax:
    """`function(q, k, v, causal=...)`, differentiated, for all layers in one program."""

    def __init__(self, function: Callable[..., Any], arrays: Arrays):
        import jax
        import jax.numpy as jnp

        import kernels

        kernels.keep_freed_memory()  # as every run does

        def work(arrays):
            found = []
            for name, layer in LAYERS.items():
                *q_k_v, back = (arrays[f"{name}/{part}"] for part in PARTS)
                y, pullback = jax.vjp(partial(function, causal=layer.causal), *q_k_v)
                found += [y, *pullback(back)]
            return found

        self.arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
        lowered = jax.jit(work).lower(self.arrays)
        self.work = lowered.compile(compiler_options=kernels.compiler_options())

    def advance(self) -> list[float]:
        """All of it once."""
        import jax

        found = jax.block_until_ready(self.work(self.arrays))
        return [sum(middle_of(np.asarray(part)) for part in found)]


class Torch:
    """`scaled_dot_product_attention`, heads before tokens."""

    def __init__(self, arrays: Arrays):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.layers = []
        for name, layer in LAYERS.items():
            *q_k_v, back = (
                torch.from_numpy(arrays[f"{name}/{part}"]).transpose(1, 2) for part in PARTS
            )
            self.layers.append(([x.requires_grad_() for x in q_k_v], back, layer.causal))

    def advance(self) -> list[float]:
        """All of it once."""
        import torch

        found = []
        for q_k_v, back, causal in self.layers:
            y = torch.nn.functional.scaled_dot_product_attention(*q_k_v, is_causal=causal)
            found += [y.detach(), *torch.autograd.grad(y, q_k_v, back)]
        return [sum(middle_of(part.transpose(1, 2).numpy()) for part in found)]


def middle_of(part: np.ndarray) -> float:
    """The mean size of the numbers of one token: a mean of all would take long."""
    return float(np.abs(part[-1, part.shape[1] // 2]).mean())


def _ours(arrays: Arrays) -> Jax:
    import kernels
    from zoo.functional.attention import Mask

    attention = kernels.best().attention
    return Jax(lambda q, k, v, causal: attention(q, k, v, Mask(causal=causal)), arrays)


def _jax_nn(arrays: Arrays) -> Jax:
    import jax

    def attention(q, k, v, causal):
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal)

    return Jax(attention, arrays)


ENTRY = Entry(
    name="attention",
    summary=(
        "Attention of 12 heads of 64, 2 causal sequences of 1,024 tokens and 4 unmasked ones of "
        "512, with gradients, float32."
    ),
    unit="forward and backward pass",
    prepare=prepare,
    flops=flops,
    competitors={
        OURS: Competitor(build=_ours, what="kernels.best()"),
        JAX_NN: Competitor(build=_jax_nn, what="dot_product_attention, jax.jit"),
        TORCH: Competitor(
            build=Torch, requires=("torch",), what="scaled_dot_product_attention, eager"
        ),
    },
    promises=(
        Promise(
            text="at least level with jax.nn.dot_product_attention",
            against=JAX_NN,
            at_least_ratio=1.0,
        ),
        Promise(
            text="at least level with PyTorch's scaled_dot_product_attention",
            against=TORCH,
            at_least_ratio=1.0,
        ),
    ),
)
