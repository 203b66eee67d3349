"""Convolution for XLA's CPU backend: a matrix product where it is one, or is cheaply made one.

A window of one tap is a dense layer on every stride-th row; XLA's convolution takes several times
as long for the gradient with respect to such a kernel. With few input channels (a first layer) the
values under the window are laid side by side, `[B, *J, window · C]`, and one product does the rest:
forward and gradient take less time than XLA's, which works channel by channel. All others are
XLA's own convolution, which is at its best with `kernels.compiler_options`.

The gradient of a gradient, as a gradient penalty wants it, takes XLA's convolution seven times as
long as the product does where a stride leaves few copies of each value; the gradient itself takes
both the same time alone, and the product a little longer within a step.
"""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.dense.xla import dense
from kernels.window import rows_out, tap, taps
from zoo.functional import conv as reference
from zoo.functional.window import Padding, Size, pad_pairs, per_axis, span

FEW_CHANNELS = 4  # a copy of the input for each tap of the window is cheap up to here
FEW_COPIES = 4  # of each value, where windows overlap little because of strides


def conv(
    x: Float[Array, "B *I in_dim"],
    kernel: Float[Array, "*window in_dim_per_group out_dim"],
    bias: Float[Array, " out_dim"] | None = None,
    *,
    strides: Size = 1,
    padding: Padding = "SAME",
    dilation: Size = 1,
    groups: int = 1,
    copies: int = 0,
) -> Float[Array, "B *J out_dim"]:
    """`zoo.functional.conv.conv`, and that function itself where a product would not be faster.

    With strides it is a product where no value is copied more than `copies` times.
    """
    *window, in_dim, out_dim = kernel.shape
    num_axes = x.ndim - 2
    steps = per_axis(strides, num_axes, "strides")
    strided = math.prod(steps) > 1 and math.prod(window) <= copies * math.prod(steps)
    is_product = set(window) == {1} or in_dim <= FEW_CHANNELS or strided
    if groups != 1 or x.shape[-1] != in_dim or not is_product:
        return reference.conv(
            x, kernel, bias, strides=strides, padding=padding, dilation=dilation, groups=groups
        )
    gaps = per_axis(dilation, num_axes, "dilation")
    spans = span(window, gaps)
    pads = tuple(pad_pairs(padding, x.shape[1:-1], spans, steps))
    rows = rows_out(x.shape[1:-1], spans, steps, pads)
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    starts = [[d * offset for d, offset in zip(gaps, u, strict=True)] for u in taps(tuple(window))]
    seen = jnp.concatenate([tap(x, start, rows, steps) for start in starts], -1)
    return dense(seen, kernel.reshape(-1, out_dim), bias)


def twice_differentiated_conv(
    x: Array, kernel: Array, bias: Array | None = None, **options: Any
) -> Array:
    """`conv` for steps that differentiate a gradient."""
    return conv(x, kernel, bias, **options, copies=FEW_COPIES)
