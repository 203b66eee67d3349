"""Transposed convolution, `[B, *I, C] * [*window, D, C] -> [B, *J, D]`:

    y[b, stride·i + dilation·u - pad, o] += x[b, i, c] · kernel[u, o, c],   then + bias[o]

The reference is `zoo.functional.conv.conv_transpose`. Backends:

| file | platform | serves |
|---|---|---|
| `xla.py` | any; chosen on CPUs | everything; dilated windows and groups by the reference |
"""

from kernels.conv_transpose.xla import conv_transpose

__all__ = ["conv_transpose"]
