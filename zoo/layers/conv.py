"""Convolution layers. Channels are the last axis: images are `[B, I, I, C]`."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from zoo.functional.init import Initializer, lecun_normal
from zoo.functional.ops import Ops
from zoo.functional.window import Padding, Size


class Conv(nnx.Module):
    """`zoo.functional.conv` with a learned kernel `[*window, in_dim / groups, out_dim]` and bias.

    `kernel_size` says how many spatial axes there are: `(3,)` a series, `(3, 3)` or 3 an image,
    `(3, 3, 3)` a video. Parameters are float32; the sum is taken in the input's dtype.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: Size,
        *,
        rngs: nnx.Rngs,
        strides: Size = 1,
        padding: Padding = "SAME",
        dilation: Size = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: Initializer = lecun_normal,
        ops: Ops = Ops(),
    ):
        _check_groups(groups, in_dim, out_dim)
        shape = (*_window(kernel_size), in_dim // groups, out_dim)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32), axes=("in", "out"))
        self.bias = nnx.Param(jnp.zeros(out_dim), axes=("out",)) if use_bias else None
        self.in_dim = in_dim
        self.strides = strides
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.conv = ops.conv

    def __call__(self, x: Float[Array, "B *I in_dim"]) -> Float[Array, "B *J out_dim"]:
        _check_input("Conv", x, self.kernel.ndim, self.in_dim)
        return self.conv(
            x,
            self.kernel.astype(x.dtype),
            None if self.bias is None else self.bias.astype(x.dtype),
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose(nnx.Module):
    """`zoo.functional.conv_transpose` with a learned kernel `[*window, out_dim / groups, in_dim]`.

    With `padding="SAME"` it enlarges each spatial axis exactly `strides` times. At first the
    kernel's entries have the variance that `kernel_init` gives to a convolution from `in_dim` to
    `out_dim` channels with this window.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: Size,
        *,
        rngs: nnx.Rngs,
        strides: Size = 1,
        padding: Padding = "SAME",
        output_padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: Initializer = lecun_normal,
        ops: Ops = Ops(),
    ):
        _check_groups(groups, in_dim, out_dim)
        shape = (*_window(kernel_size), in_dim, out_dim // groups)
        kernel = kernel_init(rngs.params(), shape, jnp.float32)
        self.kernel = nnx.Param(jnp.swapaxes(kernel, -1, -2), axes=("out", "in"))
        self.bias = nnx.Param(jnp.zeros(out_dim), axes=("out",)) if use_bias else None
        self.in_dim = in_dim
        self.strides = strides
        self.padding = padding
        self.output_padding = output_padding
        self.dilation = dilation
        self.groups = groups
        self.conv_transpose = ops.conv_transpose

    def __call__(self, x: Float[Array, "B *I in_dim"]) -> Float[Array, "B *J out_dim"]:
        _check_input("ConvTranspose", x, self.kernel.ndim, self.in_dim)
        return self.conv_transpose(
            x,
            self.kernel.astype(x.dtype),
            None if self.bias is None else self.bias.astype(x.dtype),
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


def _window(kernel_size: Size) -> tuple[int, ...]:
    return (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)


def _check_groups(groups: int, in_dim: int, out_dim: int) -> None:
    if groups < 1 or in_dim % groups or out_dim % groups:
        raise ValueError(f"{groups=} must divide {in_dim=} and {out_dim=}")


def _check_input(layer: str, x: Array, num_axes: int, in_dim: int) -> None:
    if x.ndim != num_axes:
        raise ValueError(
            f"{layer} expects [batch, {num_axes - 2} spatial axes, channels], got shape {x.shape}"
        )
    if x.shape[-1] != in_dim:
        raise ValueError(
            f"the last axis of x is {x.shape[-1]}, {layer} expects {in_dim} channels; "
            "are the channels the last axis?"
        )
