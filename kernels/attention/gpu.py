"""Attention for GPUs: cuDNN where it serves the call, the reference where it does not.

What it serves is seen from types and shapes, while a program is traced. The kernel in
`pallas_gpu.py` serves more, float32 and segments among it, and is chosen by hand until it has been
measured on a GPU.
"""

from jaxtyping import Array, Float

from kernels.attention import cudnn
from zoo.functional.attention import Bias, Mask, Visible
from zoo.functional.attention import attention as reference


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: Mask | Visible | None = None,
    bias: Bias | None = None,
) -> Float[Array, "B T N H"]:
    """`zoo.functional.attention.attention`; where cuDNN has it differentiable backwards, once."""
    try:
        return cudnn.attention(q, k, v, mask, bias)
    except (NotImplementedError, RuntimeError):  # or there is no cuDNN, as on AMD's GPUs
        return reference(q, k, v, mask, bias)
