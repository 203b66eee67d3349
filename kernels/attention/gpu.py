"""Attention for GPUs: cuDNN where it serves the call, the reference where it does not.

What it serves is seen from types and shapes, while a program is traced. The kernel in
`pallas_gpu.py` serves more, float32 and segments among it, and is chosen by hand until it has been
measured on a GPU. Why the reference runs is logged once for each reason, at level WARNING of the
logger `kernels`: it has arrays of T·S numbers.
"""

import functools
import logging

from jaxtyping import Array, Float

from kernels.attention import cudnn
from zoo.functional.attention import Bias, Mask, Visible
from zoo.functional.attention import attention as reference

logger = logging.getLogger("kernels")


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: Mask | Visible | None = None,
    bias: Bias | None = None,
) -> Float[Array, "B T N H"]:
    """`zoo.functional.attention.attention`; where cuDNN has it differentiable backwards, once.

    Raises:
        RuntimeError: cuDNN is installed and does not work.
    """
    try:
        return cudnn.attention(q, k, v, mask, bias)
    except NotImplementedError as error:  # of this call, or there is no cuDNN, as on AMD's GPUs
        _say(str(error))
        return reference(q, k, v, mask, bias)


@functools.cache
def _say(reason: str) -> None:
    logger.warning("gpu: attention -> reference, with T·S numbers, as %s", reason)
