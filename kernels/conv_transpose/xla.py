"""Transposed convolution for XLA's CPU backend: one product, then rows laid side by side.

With j + pad = s·q + r and u = s·t + r, for each remainder r below the stride s (the sub-pixel form,
Shi et al. 2016),

    y[s·q + r - pad, o] = Σ_t p[q - t, t, r, o]
    p[i, t, r, o] = Σ_c x[i, c] · kernel[s·t + r, o, c]

so p is one matrix product, of exactly the numbers that are wanted, and so are its two gradients.
The reference spreads the rows of x with zeros between them and multiplies by these too; the
gradient of that with respect to the kernel takes XLA several times as long.
"""

from functools import reduce
from itertools import chain

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels.dense.xla import dense
from zoo.functional import conv as reference
from zoo.functional.window import Padding, Size, per_axis, transposed_crops


def conv_transpose(
    x: Float[Array, "B *I in_dim"],
    kernel: Float[Array, "*window out_dim_per_group in_dim"],
    bias: Float[Array, " out_dim"] | None = None,
    *,
    strides: Size = 1,
    padding: Padding = "SAME",
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Float[Array, "B *J out_dim"]:
    """`zoo.functional.conv.conv_transpose`, and that function itself where windows are dilated or
    channels grouped."""
    *window, out_dim, in_dim = kernel.shape
    num_axes = len(window)
    if groups != 1 or set(per_axis(dilation, num_axes, "dilation")) != {1}:
        return reference.conv_transpose(
            x,
            kernel,
            bias,
            strides=strides,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
            groups=groups,
        )
    steps = per_axis(strides, num_axes, "strides")
    extra = per_axis(output_padding, num_axes, "output_padding")
    crops = transposed_crops(padding, x.shape[1:-1], window, steps, extra)
    spans = [-(-k // s) for k, s in zip(window, steps, strict=True)]  # taps t of each remainder
    fill = [(0, s * t - k) for k, s, t in zip(window, steps, spans, strict=True)]
    matrix = jnp.pad(kernel, [*fill, (0, 0), (0, 0)]).reshape(-1, in_dim).T
    batch, *rows, _ = x.shape
    y = dense(x, matrix).reshape(batch, *rows, *chain(*zip(spans, steps, strict=True)), out_dim)
    for axis, span in enumerate(spans, 1):  # [B, *i, t₁, r₁, t₂, r₂, ..., D] -> [B, *q, *r, D]
        seen = [lax.index_in_dim(y, t, num_axes + axis, keepdims=False) for t in range(span)]
        y = reduce(jnp.add, [_moved(tap, axis, t, span) for t, tap in enumerate(seen)])

    # [B, *q, *r, D] -> [B, q₁, r₁, q₂, r₂, ..., D] -> [B, *(s·q + r), D]
    rows = y.shape[1 : 1 + num_axes]
    y = y.transpose(0, *chain(*((a, a + num_axes) for a in range(1, 1 + num_axes))), y.ndim - 1)
    y = y.reshape(batch, *(s * q for s, q in zip(steps, rows, strict=True)), out_dim)
    whole = [s * (n - 1) + k for n, s, k in zip(x.shape[1:-1], steps, window, strict=True)]
    cut = [
        (-low, k - high - n, 0)
        for k, (low, high), n in zip(whole, crops, y.shape[1:-1], strict=True)
    ]
    y = lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *cut, (0, 0, 0)])
    return y if bias is None else y + bias


def _moved(x: Array, axis: int, by: int, span: int) -> Array:
    """Row i at i + by, in `span - 1` more rows."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (by, span - 1 - by)
    return jnp.pad(x, pads)
