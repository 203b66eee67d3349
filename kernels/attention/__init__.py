"""Flash attention, `q [B, T, N, H], k [B, S, K, H], v [B, S, K, H] -> [B, T, N, H]`:

    softmax(Q Kᵀ / √H) V

over the keys that the rules of a `Mask` leave, without an array of T·S numbers (Dao et al. 2022,
"FlashAttention"; Dao 2023, "FlashAttention-2"). Each key/value head serves N / K neighbouring query
heads and is never repeated in memory. The reference is `zoo.functional.attention`.

| backend         | runs on                     | serves                                         |
|-----------------|-----------------------------|------------------------------------------------|
| `pallas_gpu.py` | NVIDIA GPUs, through Triton | any T, S; causal, lengths, segments; H <= 256; |
| `pallas_tpu.py` | TPUs, through Mosaic        | float32, bfloat16; first derivatives           |
| `cudnn.py`      | NVIDIA GPUs, by `jax.nn`    | causal, lengths; H <= 128; bfloat16, float16   |
| `xla.py`        | any; chosen on CPUs         | everything, some of it by the reference        |
| `gpu.py`        | any; chosen on GPUs         | everything, by `cudnn.py` or by the reference  |

The first two serve the same; with `interpret=True` they run on a CPU too, slowly. What they and
cuDNN do not serve, such as a bias or a mask that is an array, raises `NotImplementedError`.
`xla.py` hands that to the reference, and so any call of up to 128 queries. `flash.py` has the
equations and whatever the kernels share.
"""

from kernels.attention.xla import attention

__all__ = ["attention"]
