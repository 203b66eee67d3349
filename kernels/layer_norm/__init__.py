"""Normalisation of each position by itself, `[..., D] -> [..., D]`, over the last axis:

    layer_norm:  y = scale ⊙ (x - μ) / √(mean((x - μ)²) + ε) + bias,   μ = mean(x)
    rms_norm:    y = scale ⊙ x / √(mean(x²) + ε)

The references are `zoo.functional.norm.layer_norm` (Ba et al. 2016) and `rms_norm` (Zhang &
Sennrich 2019). Backends: `xla.py` (CPU), `pallas_gpu.py` (Triton), `pallas_tpu.py` (Mosaic).
"""

from kernels.layer_norm.xla import layer_norm, rms_norm

__all__ = ["layer_norm", "rms_norm"]
