"""Long short-term memory over a sequence, `[B, T, D] -> [B, T, H]`; for every step

    i, f, o = σ(x W_x + h W_h + b),   g = tanh(x W_x + h W_h + b)
    c ← f ⊙ c + i ⊙ g,   h ← o ⊙ tanh(c)

where the mask is True; where it is False, h and c stay and the output is 0. The reference is
`zoo.functional.recurrent.lstm`. Backends:

| file | platform | serves |
|---|---|---|
| `xla.py` | any; chosen on CPUs | everything |
| `pallas_gpu.py` | NVIDIA, through Triton | float32 and bfloat16, the state in float32; |
| | | W_h on chip up to H = 64 in float32, 128 in bfloat16 |
| `pallas_tpu.py` | TPU, through Mosaic | the same, while W_h takes at most 8 MB: H <= 640 or 1024 |

A larger W_h is read from a GPU's second-level cache in every step, which decides how long that
takes. Those in Pallas take any mask, run on a CPU too with `interpret=True`, and are differentiable
once. `recurrence.py` has the backward pass and whatever all share.
"""

from kernels.lstm.xla import lstm

__all__ = ["lstm"]
