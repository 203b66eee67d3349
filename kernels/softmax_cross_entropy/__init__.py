"""Cross-entropy of a softmax over a vocabulary, with the product that gives its logits:
`[..., D] · [D, V] -> [...]`, one loss an example,

    L = -Σ_v t_v log softmax(x W + b)_v

The logits, V numbers an example, are by far the largest array of a language model's training step.
Here they are computed a tile of the vocabulary at a time and never exist as a whole. The reference
is `zoo.functional.cross_entropy.linear_cross_entropy`. Backends:

| file | platform | serves |
|---|---|---|
| `xla.py` | any; chosen on CPUs | everything; up to 2,048 words by the reference |
| `pallas_gpu.py` | NVIDIA, through Triton | float32 and bfloat16 |
| `pallas_tpu.py` | TPU, through Mosaic | float32 and bfloat16, rows of at most 32 KB |

Those in Pallas run on a CPU too with `interpret=True`, and are differentiable once. A bias may be
-inf, for words that shall have no probability.
"""

from kernels.softmax_cross_entropy.xla import linear_cross_entropy

__all__ = ["linear_cross_entropy"]
