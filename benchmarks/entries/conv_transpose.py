"""The transposed convolutions of a DCGAN's generator: forward, and the gradients of both inputs.

The generator of the recipe digits-gan has two: 7x7x128 to 14x14x64, and 14x14x64 to 28x28x1.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor, Entry, Promise
from kernels.conv_transpose.specs import SPECS

NAMES = ("dcgan28-first", "dcgan28-last")
STRIDE, PAD = 2, 1


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Of each layer the input, the kernel `[window, window, out, in]`, and what comes back."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for name in NAMES:
        spec = SPECS[name]
        num, side = 4 if quick else spec.batch, spec.size
        shapes = {
            "x": (num, side, side, spec.in_dim),
            "kernel": (spec.window, spec.window, spec.out_dim, spec.in_dim),
            "back": (num, 2 * side, 2 * side, spec.out_dim),
        }
        for part, shape in shapes.items():
            arrays[f"{name}/{part}"] = rng.standard_normal(shape, np.float32)
    return arrays


class Jax:
    """Any function of ours, `function(x, kernel, strides=...)`, for both layers in one program."""

    def __init__(self, function: Callable[..., Any], arrays: Arrays):
        import jax
        import jax.numpy as jnp

        import kernels

        kernels.keep_freed_memory()  # as every run does

        def work(arrays):
            total = jnp.zeros(())
            for name in NAMES:
                x, kernel, back = (arrays[f"{name}/{part}"] for part in ("x", "kernel", "back"))
                y, pullback = jax.vjp(lambda x, k: function(x, k, strides=STRIDE), x, kernel)
                total += sum(jnp.abs(part).mean() for part in (y, *pullback(back)))
            return total

        self.arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
        lowered = jax.jit(work).lower(self.arrays)
        self.work = lowered.compile(compiler_options=kernels.compiler_options())

    def advance(self) -> list[float]:
        """All of it once."""
        return [float(self.work(self.arrays))]


class Torch:
    """`torch.nn.functional.conv_transpose2d`, channels first."""

    def __init__(self, arrays: Arrays):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.layers = []
        for name in NAMES:
            moved = {
                "x": arrays[f"{name}/x"].transpose(0, 3, 1, 2),
                "kernel": arrays[f"{name}/kernel"].transpose(3, 2, 0, 1),
                "back": arrays[f"{name}/back"].transpose(0, 3, 1, 2),
            }
            x, kernel, back = (
                torch.from_numpy(np.ascontiguousarray(part)) for part in moved.values()
            )
            self.layers.append((x.requires_grad_(), kernel.requires_grad_(), back))

    def advance(self) -> list[float]:
        """All of it once."""
        import torch

        total = 0.0
        for x, kernel, back in self.layers:
            y = torch.nn.functional.conv_transpose2d(x, kernel, stride=STRIDE, padding=PAD)
            gradients = torch.autograd.grad(y, (x, kernel), back)
            total += sum(float(part.detach().abs().mean()) for part in (y, *gradients))
        return [total]


def _ours(arrays: Arrays) -> Jax:
    from kernels.conv_transpose import conv_transpose

    return Jax(conv_transpose, arrays)


def _lax(arrays: Arrays) -> Jax:
    from jax import lax

    def conv_transpose(x, kernel, strides):
        # The layouts are those of the convolution whose gradient this is.
        layouts = ("NHWC", "HWIO", "NHWC")
        return lax.conv_transpose(
            x, kernel, (strides,) * 2, "SAME", dimension_numbers=layouts, transpose_kernel=True
        )

    return Jax(conv_transpose, arrays)


ENTRY = Entry(
    name="conv_transpose",
    summary="Both transposed convolutions of a DCGAN for 28 pixels, 64 images, with gradients.",
    unit="forward and backward pass",
    prepare=prepare,
    competitors={
        OURS: Competitor(build=_ours, what="kernels.conv_transpose"),
        "lax": Competitor(build=_lax, what="lax.conv_transpose"),
        "torch": Competitor(build=Torch, requires=("torch",), what="conv_transpose2d, eager"),
    },
    promises=(
        Promise(
            text="at least 5 times as fast as lax.conv_transpose", against="lax", at_least_ratio=5.0
        ),
    ),
)
