"""The table of kernels that must compile: a new case is one row here.

A kernel that is new also has one function in `programs.py`, which says what its arguments are.
"""

from typing import Literal, NamedTuple

KB, MB = 2**10, 2**20
SCRATCH = 256 * KB  # of the TPU's compiler itself, whatever the arrays' sizes


class Case(NamedTuple):
    """One kernel at one of its named shapes, compiled for every chip of its backend's platform."""

    operation: str
    backend: Literal["pallas_gpu", "pallas_tpu"]
    spec: str  # one of `specs.py`
    dtype: str
    passes: Literal["forward", "backward"]
    kernels: str  # names, with spaces between, of the Pallas kernels that must be in the program
    temp_bytes: int  # memory, at most, beside arguments and results

    @property
    def platform(self) -> str:
        return self.backend.removeprefix("pallas_")

    def __str__(self) -> str:
        return "-".join(self[:5])


# Norms keep no array like x: on a GPU the backward pass has 264 rows of sums, of scale and of bias,
# and rms_norm a bias of zeros.
CASES = [
    Case("layer_norm", "pallas_gpu", "bible-gpt", "float32", "forward", "norm_forward", KB),
    Case("layer_norm", "pallas_gpu", "bible-gpt", "float32", "backward", "norm_backward", 30 * KB),
    Case("layer_norm", "pallas_gpu", "bert-base", "float32", "forward", "norm_forward", KB),
    Case("layer_norm", "pallas_gpu", "bert-base", "float32", "backward", "norm_backward", 2 * MB),
    Case("layer_norm", "pallas_gpu", "gpt2-xl", "bfloat16", "forward", "norm_forward", KB),
    Case("layer_norm", "pallas_gpu", "gpt2-xl", "bfloat16", "backward", "norm_backward", 4 * MB),
    Case("layer_norm", "pallas_gpu", "gpt3-175b", "bfloat16", "forward", "norm_forward", KB),
    Case("layer_norm", "pallas_gpu", "gpt3-175b", "bfloat16", "backward", "norm_backward", 25 * MB),
    Case("rms_norm", "pallas_gpu", "bible-gpt", "float32", "forward", "norm_forward", KB),
    Case("rms_norm", "pallas_gpu", "bible-gpt", "float32", "backward", "norm_backward", 30 * KB),
    Case("rms_norm", "pallas_gpu", "llama-70b", "bfloat16", "forward", "norm_forward", 33 * KB),
    Case("rms_norm", "pallas_gpu", "llama-70b", "bfloat16", "backward", "norm_backward", 17 * MB),
    Case("layer_norm", "pallas_tpu", "bible-gpt", "float32", "forward", "norm_forward", SCRATCH),
    Case("layer_norm", "pallas_tpu", "bible-gpt", "float32", "backward", "norm_backward", SCRATCH),
    Case("layer_norm", "pallas_tpu", "bert-base", "float32", "forward", "norm_forward", SCRATCH),
    Case("layer_norm", "pallas_tpu", "bert-base", "float32", "backward", "norm_backward", SCRATCH),
    Case("layer_norm", "pallas_tpu", "gpt2-xl", "bfloat16", "forward", "norm_forward", SCRATCH),
    Case("layer_norm", "pallas_tpu", "gpt2-xl", "bfloat16", "backward", "norm_backward", SCRATCH),
    Case("layer_norm", "pallas_tpu", "gpt3-175b", "bfloat16", "forward", "norm_forward", SCRATCH),
    Case("layer_norm", "pallas_tpu", "gpt3-175b", "bfloat16", "backward", "norm_backward", SCRATCH),
    Case("rms_norm", "pallas_tpu", "bible-gpt", "float32", "forward", "norm_forward", SCRATCH),
    Case("rms_norm", "pallas_tpu", "bible-gpt", "float32", "backward", "norm_backward", SCRATCH),
    Case("rms_norm", "pallas_tpu", "llama-70b", "bfloat16", "forward", "norm_forward", SCRATCH),
    Case("rms_norm", "pallas_tpu", "llama-70b", "bfloat16", "backward", "norm_backward", SCRATCH),
]
