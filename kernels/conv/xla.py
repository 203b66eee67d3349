"""Convolution for XLA's CPU backend: the forward pass is XLA's, the kernel's gradient is matmuls.

XLA computes dL/dkernel as a convolution whose window is the whole output image, which on a CPU is
several times slower than the forward pass although it is the same number of multiplications. Here
the derivative along the kernel is written as one matrix product for each tap u of the window,

    ẏ[i] = Σ_u x[stride·i + dilation·u - pad] · k̇[u]

and JAX transposes it to dL/dk[u] = Σ_i x[stride·i + dilation·u - pad]ᵀ · dL/dy[i]. A window of one
tap is a matrix product in every direction.
"""

from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from kernels.dense.xla import dense
from kernels.window import Pads, Sizes, rows_out, tap, taps
from zoo.functional import conv as reference
from zoo.functional.window import Padding, Size, pad_pairs, per_axis, span

# Below so many input channels, one wide product is faster than one a tap.
FEW_CHANNELS = 16


def conv(
    x: Float[Array, "B *I in_dim"],
    kernel: Float[Array, "*window in_dim_per_group out_dim"],
    bias: Float[Array, " out_dim"] | None = None,
    *,
    strides: Size = 1,
    padding: Padding = "SAME",
    dilation: Size = 1,
    groups: int = 1,
) -> Float[Array, "B *J out_dim"]:
    """`zoo.functional.conv.conv`; grouped convolutions are the reference itself."""
    if groups != 1:
        return reference.conv(
            x, kernel, bias, strides=strides, padding=padding, dilation=dilation, groups=groups
        )
    if x.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            f"the input has {x.shape[-1]} channels, the kernel wants {kernel.shape[-2]}"
        )
    window, num_axes = kernel.shape[:-2], x.ndim - 2
    steps = per_axis(strides, num_axes, "strides")
    gaps = per_axis(dilation, num_axes, "dilation")
    pads = tuple(pad_pairs(padding, x.shape[1:-1], span(window, gaps), steps))
    if set(window) == {1} and set(pads) == {(0, 0)}:
        rows = rows_out(x.shape[1:-1], window, steps, pads)
        return dense(tap(x, (0,) * num_axes, rows, steps), kernel.reshape(kernel.shape[-2:]), bias)
    y = _conv(x, kernel, steps, pads, gaps)
    return y if bias is None else y + bias


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _conv(x: Array, kernel: Array, strides: Sizes, pads: Pads, dilation: Sizes) -> Array:
    return reference.conv(x, kernel, strides=strides, padding=pads, dilation=dilation)


def _conv_jvp(strides: Sizes, pads: Pads, dilation: Sizes, primals, tangents):
    x, kernel = primals
    dx, dkernel = tangents
    y = _conv(x, kernel, strides, pads, dilation)
    # A constant input, such as the images of a first layer, costs nothing: no convolution by zeros.
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(reference.conv(dx, kernel, strides=strides, padding=pads, dilation=dilation))
    if not isinstance(dkernel, SymbolicZero):
        parts.append(_by_taps(x, dkernel, strides, pads, dilation))
    return y, reduce(add, parts) if parts else SymbolicZero(jax.typeof(y).to_tangent_aval())


_conv.defjvp(_conv_jvp, symbolic_zeros=True)


def _by_taps(x: Array, kernel: Array, strides: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """The convolution as matrix products: one a tap of the window, or one of all taps.

    One of all takes a copy of x for each tap, which is cheap where the channels are few.
    """
    window, in_dim = kernel.shape[:-2], kernel.shape[-2]
    rows = rows_out(x.shape[1:-1], span(window, dilation), strides, pads)
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    starts = [[d * offset for d, offset in zip(dilation, u, strict=True)] for u in taps(window)]
    seen = [tap(x, start, rows, strides) for start in starts]
    if in_dim < FEW_CHANNELS:
        return dense(jnp.concatenate(seen, -1), kernel.reshape(-1, kernel.shape[-1]))
    return reduce(add, [dense(part, kernel[u]) for part, u in zip(seen, taps(window), strict=True)])
