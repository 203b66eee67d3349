"""Long short-term memory over a sequence, `[B, T, D] -> [B, T, H]`; for every step

    i, f, o = σ(x W_x + h W_h + b),   g = tanh(x W_x + h W_h + b)
    c ← f ⊙ c + i ⊙ g,   h ← o ⊙ tanh(c)

where the mask is True; where it is False, h and c stay and the output is 0. The reference is
`zoo.functional.recurrent.lstm`. Backends: `xla.py` (CPU).
"""

from kernels.lstm.xla import lstm

__all__ = ["lstm"]
