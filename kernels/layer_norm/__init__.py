"""Normalisation of each position by itself, `[..., D] -> [..., D]`, over the last axis:

    layer_norm:  y = scale ⊙ (x - μ) / √(mean((x - μ)²) + ε) + bias,   μ = mean(x)
    rms_norm:    y = scale ⊙ x / √(mean(x²) + ε)

The references are `zoo.functional.norm.layer_norm` (Ba et al. 2016) and `rms_norm` (Zhang &
Sennrich 2019). Backends:

| file | platform | serves |
|---|---|---|
| `xla.py` | any; chosen nowhere | everything |
| `pallas_gpu.py` | NVIDIA, through Triton | float32 and bfloat16, D <= 16,384 |
| `pallas_tpu.py` | TPU, through Mosaic | float32 and bfloat16, D <= 16,384 |

On a CPU `kernels.best` stays with the reference. Ours is faster alone, as the benchmark
`layer_norm` records, but within a whole step of the four-layer GPT it gained 1 %: 58.6 to 58.1 ms,
medians of 150 steps in turn.

Those in Pallas run on a CPU too with `interpret=True`, and are differentiable once.
"""

from kernels.layer_norm.xla import layer_norm, rms_norm

__all__ = ["layer_norm", "rms_norm"]
