"""Layer norm, `[..., D] -> [..., D]`:

    y = scale · (x - μ) / √(σ² + ε) + bias,   μ and σ² over the last axis

The reference is `zoo.functional.norm.layer_norm`. Backends: `xla.py` (CPU).
"""

from kernels.layer_norm.xla import layer_norm

__all__ = ["layer_norm"]
