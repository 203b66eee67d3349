"""Convolution, `[B, *I, C] * [*window, C, D] -> [B, *J, D]`:

    y[b, i, o] = Σ_{u, c} x[b, stride·i + dilation·u - pad, c] · kernel[u, c, o] + bias[o]

The reference is `zoo.functional.conv.conv`. Backends: `xla.py` (CPU).
"""

from kernels.conv.xla import conv

__all__ = ["conv"]
