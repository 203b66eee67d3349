"""Max pooling, `[B, *I, C] -> [B, *J, C]`:

    y[b, i, c] = max_u x[b, stride·i + u - pad, c],   the gradient to the first u that attains it

The reference is `zoo.functional.pooling.max_pool`. Backends: `xla.py` (CPU).
"""

from kernels.max_pool.xla import max_pool

__all__ = ["max_pool"]
