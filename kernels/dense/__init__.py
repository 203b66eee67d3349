"""The dense map, `[..., in_dim] · [in_dim, out_dim] -> [..., out_dim]`:

    y = x W + b

The reference is `zoo.functional.dense.dense`. Backends: `xla.py` (CPU).
"""

from kernels.dense.xla import dense

__all__ = ["dense"]
