"""Attention by NVIDIA's own library, cuDNN, through `jax.nn.dot_product_attention`.

It is flash attention too, written by hand for each of their GPUs. It counts in bfloat16 and float16
alone, and knows causal masks and lengths. Where a row has no key at all the library's answer is not
defined; it is given one, and what comes of that is put to 0, as in the reference.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.attention.flash import served
from zoo.functional.attention import Bias, Mask, Visible

LARGEST_WIDTH, WIDTH_UNIT = 128, 8  # of heads, which cuDNN reads 16 bytes at a time
ABSENT = "cuDNN is not detected."  # JAX's words, where a library that fails has others


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: Mask | Visible | None = None,
    bias: Bias | None = None,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B T N H"]:
    """`zoo.functional.attention.attention`; differentiable backwards, and once.

    Args:
        q: queries, bfloat16 or float16.
        k: keys.
        v: values.
        mask: rules, without segments.
        bias: None.
        implementation: "xla" makes the same call on any device, for tests.

    Raises:
        NotImplementedError: cuDNN does not serve these arguments, or is not installed.
        RuntimeError: it is, and does not work.
    """
    mask = served(q, k, v, mask, bias, dtypes=(jnp.bfloat16, jnp.float16))
    if mask.segments is not None:
        raise NotImplementedError(
            "cuDNN knows no segments; use kernels.attention.pallas_gpu, which does"
        )
    width = q.shape[-1]
    if width > LARGEST_WIDTH or width % WIDTH_UNIT:
        raise NotImplementedError(
            f"heads are {width} wide, and not a multiple of {WIDTH_UNIT} of at most "
            f"{LARGEST_WIDTH}; use kernels.attention.pallas_gpu"
        )
    lengths = mask.lengths
    some = None if lengths is None else jnp.clip(lengths, 1, k.shape[1]).astype(jnp.int32)
    try:
        outputs = jax.nn.dot_product_attention(
            q,
            k,
            v,
            is_causal=mask.causal,
            key_value_seq_lengths=some,
            implementation=implementation,
        )
    except RuntimeError as error:
        if str(error) != ABSENT:
            raise
        raise NotImplementedError(
            "cuDNN is not installed; it comes with jax[cuda12] and needs an NVIDIA GPU"
        ) from error
    if lengths is None:
        return outputs
    return jnp.where((lengths > 0)[:, None, None, None], outputs, 0)
