"""Convolution and transposed convolution in any number of spatial dimensions, channels last.

The spatial axes are written `*I`; an image batch is `[B, I, I, C]`, a series `[B, I, C]`. In
the formulas below one spatial axis stands for all.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from zoo.functional.window import (
    Padding,
    Size,
    check_fits,
    pad_pairs,
    per_axis,
    span,
    transposed_crops,
)

_LETTERS = "DHW"  # the spatial axes' letters, as `lax` wants to hear them


def _layouts(num_axes: int) -> tuple[str, str, str]:
    """Layouts of input, kernel and output, for example NHWC, HWIO, NHWC."""
    if not 1 <= num_axes <= 3:
        raise ValueError(f"inputs are [batch, 1 to 3 spatial axes, channels], got {num_axes} axes")
    letters = _LETTERS[-num_axes:]
    return f"N{letters}C", f"{letters}IO", f"N{letters}C"


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
    """Convolution as neural networks mean it, a sliding correlation: the kernel is not mirrored.

        y[b, i, o] = Σ_{u, c} x[b, stride·i + dilation·u - pad, c] · kernel[u, c, o] + bias[o]

    where `x` is zero outside its bounds. With `groups > 1` the channels fall into that many equal
    parts, and part g of the output sees part g of the input only.
    """
    num_axes = x.ndim - 2
    layouts = _layouts(num_axes)
    _check_channels(x.shape[-1], kernel.shape[-2] * groups, kernel.shape[-1], groups)
    strides = per_axis(strides, num_axes, "strides")
    dilation = per_axis(dilation, num_axes, "dilation")
    spans = span(kernel.shape[:-2], dilation)
    pads = pad_pairs(padding, x.shape[1:-1], spans, strides)
    check_fits(x.shape[1:-1], spans, pads)
    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=pads,
        rhs_dilation=dilation,
        feature_group_count=groups,
        dimension_numbers=layouts,
    )
    return y if bias is None else y + bias


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
    """The transpose of `conv` as a linear map: what `conv` reads, this writes.

        y[b, stride·i + dilation·u - pad, o] += x[b, i, c] · kernel[u, o, c],   then + bias[o]

    so it is the gradient of `conv` with the *same* kernel with respect to that `conv`'s input, and
    the kernel's last two axes read (what comes out, what goes in). PyTorch's `ConvTranspose2d`
    weight, `[in, out, u, v]`, becomes this kernel by `transpose(2, 3, 1, 0)`, as its `Conv2d` does.

    The output has `stride·(n - 1) + dilation·(window - 1) + 1 - pad_low - pad_high +
    output_padding` rows: padding crops, and `output_padding` adds rows at the high end, to choose
    among the sizes that `conv` would have mapped to n. `"SAME"` gives exactly `stride·n` rows,
    `"VALID"` crops nothing.
    """
    num_axes = x.ndim - 2
    layouts = _layouts(num_axes)
    out_dim = kernel.shape[-2] * groups
    _check_channels(x.shape[-1], kernel.shape[-1], out_dim, groups)
    strides = per_axis(strides, num_axes, "strides")
    dilation = per_axis(dilation, num_axes, "dilation")
    extra = per_axis(output_padding, num_axes, "output_padding")
    spans = span(kernel.shape[:-2], dilation)
    crops = transposed_crops(padding, x.shape[1:-1], spans, strides, extra)
    y = lax.conv_general_dilated(
        x,
        _mirrored(kernel, groups),
        window_strides=(1,) * num_axes,
        padding=[(k - 1 - low, k - 1 - high) for k, (low, high) in zip(spans, crops, strict=True)],
        lhs_dilation=strides,
        rhs_dilation=dilation,
        feature_group_count=groups,
        dimension_numbers=layouts,
    )
    return y if bias is None else y + bias


def _mirrored(
    kernel: Float[Array, "*window out_dim_per_group in_dim"], groups: int
) -> Float[Array, "*window in_dim_per_group out_dim"]:
    """The kernel with which `conv` over the spread-out input computes the transpose."""
    *window, out_per_group, in_dim = kernel.shape
    kernel = jnp.flip(kernel, range(len(window)))
    kernel = kernel.reshape(*window, out_per_group, groups, in_dim // groups)
    kernel = jnp.moveaxis(kernel, -1, -3)  # [*window, in/groups, out/groups, groups]
    kernel = jnp.swapaxes(kernel, -1, -2)  # output channels group by group
    return kernel.reshape(*window, in_dim // groups, out_per_group * groups)


def _check_channels(got: int, want: int, out_dim: int, groups: int) -> None:
    if got != want:
        raise ValueError(f"the input has {got} channels, the kernel with {groups=} wants {want}")
    if got % groups or out_dim % groups:
        raise ValueError(f"{groups=} must divide the channels in ({got}) and out ({out_dim})")
