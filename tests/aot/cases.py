"""The table of kernels that must compile: a new case is one row here.

A kernel that is new also has one function in `programs.py`, which says what its arguments are.
"""

from typing import Literal, NamedTuple

KB, MB = 2**10, 2**20
SCRATCH = 256 * KB  # of the TPU's compiler itself, whatever the arrays' sizes
Backend = Literal["cudnn", "gpu", "pallas_gpu", "pallas_tpu"]


class Case(NamedTuple):
    """One kernel at one of its named shapes, compiled for the chips of its backend's platform."""

    operation: str
    backend: Backend
    spec: str  # one of `specs.py`
    dtype: str
    passes: Literal["forward", "backward"]
    kernels: str  # names, with spaces between, of the kernels that must be in the program
    temp_bytes: int  # memory, at most, beside arguments and results
    chips: tuple[str, ...] = ()  # not all of the platform's, where others show nothing more

    @property
    def platform(self) -> str:
        return "gpu" if self.backend == "cudnn" else self.backend.removeprefix("pallas_")

    def is_for(self, chip: str, platform: str) -> bool:
        """Whether it is compiled for a chip of that platform."""
        return platform == self.platform and chip in (self.chips or (chip,))

    @property
    def is_witness(self) -> bool:
        """Whether it is compiled every time: the least shape of an operation takes no minute."""
        return self.spec in ("bible-gpt", "gpt-nano", "vowels-first")

    def __str__(self) -> str:
        return "-".join(self[:5])


ATTENTION = (
    "flash_attention_forward",
    "flash_attention_gradient_of_queries flash_attention_gradient_of_keys",
)
LSTM = "lstm_forward", "lstm_forward lstm_backward"
CROSS_ENTROPY = "cross_entropy_statistics", "cross_entropy_gradient"


def both_ways(
    operation: str, spec: str, dtype: str, kernels: tuple[str, str], *megabytes: int
) -> list[Case]:
    """Forward and backward, on a GPU and then on TPUs: megabytes for each of the four."""
    ways = list(zip(("forward", "backward"), kernels, strict=True))
    backends: list[tuple[Backend, tuple[int, ...]]] = [
        ("pallas_gpu", megabytes[:2]),
        ("pallas_tpu", megabytes[2:]),
    ]
    return [
        Case(operation, backend, spec, dtype, passes, names, most * MB)
        for backend, bounds in backends
        for (passes, names), most in zip(ways, bounds, strict=True)
    ]


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
    Case("layer_norm", "pallas_gpu", "widest", "float32", "forward", "norm_forward", KB),
    Case("layer_norm", "pallas_gpu", "widest", "float32", "backward", "norm_backward", 9 * MB),
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
    Case("layer_norm", "pallas_tpu", "widest", "float32", "forward", "norm_forward", SCRATCH),
    Case("layer_norm", "pallas_tpu", "widest", "float32", "backward", "norm_backward", SCRATCH),
    Case("rms_norm", "pallas_tpu", "bible-gpt", "float32", "forward", "norm_forward", SCRATCH),
    Case("rms_norm", "pallas_tpu", "bible-gpt", "float32", "backward", "norm_backward", SCRATCH),
    Case("rms_norm", "pallas_tpu", "llama-70b", "bfloat16", "forward", "norm_forward", SCRATCH),
    Case("rms_norm", "pallas_tpu", "llama-70b", "bfloat16", "backward", "norm_backward", SCRATCH),
]

# Attention keeps nothing of T·S numbers: those of one head at T = 32,768 would be 2 GB in bfloat16.
# What there is are copies of q, k and v with their heads first, on TPUs, or of whole blocks.
CASES += [
    *both_ways("attention", "gpt-nano", "float32", ATTENTION, 1, 1, 5, 7),
    *both_ways("attention", "bert-base", "bfloat16", ATTENTION, 1, 2, 200, 300),
    *both_ways("attention", "smollm2-135m", "bfloat16", ATTENTION, 1, 1, 20, 60),
    *both_ways("attention", "llama-8b", "bfloat16", ATTENTION, 2, 3, 90, 300),
    *both_ways("attention", "long", "float32", ATTENTION, 1, 2, 70, 200),
    *both_ways("attention", "long", "bfloat16", ATTENTION, 1, 2, 45, 90),
]
# The widest heads that are served, and the rules in float32: their backward pass has all kernels.
ALL_OF_ATTENTION = " ".join(ATTENTION)
CASES += [
    Case("attention", backend, spec, dtype, "backward", ALL_OF_ATTENTION, most * MB, chips)
    for spec, dtype, on_gpu, on_tpu, tpus in [
        ("gemma-2b", "float32", 1, 210, ("v4", "v5e")),
        ("gemma-2b", "bfloat16", 1, 100, ("v4", "v5e")),
        ("bert-base", "float32", 2, 390, ("v5e",)),
        ("smollm2-135m", "float32", 1, 140, ("v5e",)),
        ("vit-base", "bfloat16", 150, 150, ("v5e",)),
        ("every-rule", "float32", 32, 32, ("v5e",)),
    ]
    for backend, most, chips in [("pallas_gpu", on_gpu, ()), ("pallas_tpu", on_tpu, tpus)]
]
# cuDNN keeps float32 sums of the queries' gradient.
CUDNN = "dot_product_attention_fwd", "dot_product_attention_bwd"
CASES += [
    Case("attention", "cudnn", "bert-base", "bfloat16", "forward", CUDNN[0], 2 * KB),
    Case("attention", "cudnn", "bert-base", "bfloat16", "backward", CUDNN[1], 60 * MB),
    Case("attention", "cudnn", "llama-8b", "bfloat16", "forward", CUDNN[0], KB),
    Case("attention", "cudnn", "llama-8b", "bfloat16", "backward", CUDNN[1], 80 * MB),
    Case("attention", "cudnn", "long", "bfloat16", "forward", CUDNN[0], KB),
    Case("attention", "cudnn", "long", "bfloat16", "backward", CUDNN[1], 40 * MB),
    # What `kernels.best("gpu")` gives.
    Case("attention", "gpu", "bert-base", "bfloat16", "forward", CUDNN[0], 2 * KB),
    Case("attention", "gpu", "bert-base", "bfloat16", "backward", CUDNN[1], 60 * MB),
]
# The logits are 1,570 MB of gpt2-small in float32 and 2,004 MB of llama-8b in bfloat16. The
# backward pass has a tile of their gradient; on a tpu7x also a copy of the kernel's, 1,002 MB.
CASES += [
    *both_ways("linear_cross_entropy", "gpt2-small", "float32", CROSS_ENTROPY, 2, 400, 20, 320),
    *both_ways("linear_cross_entropy", "llama-8b", "bfloat16", CROSS_ENTROPY, 5, 550, 20, 1750),
]
# One block of the vocabulary, and on a GPU the vocabulary of a subword model.
# The backward pass begins with the forward kernel: one program shows both. cuBLAS has 32 MB of it.
BOTH = " ".join(CROSS_ENTROPY)
CASES += [
    Case("linear_cross_entropy", "pallas_gpu", "bible-gpt", "float32", "backward", BOTH, 33 * MB),
    Case("linear_cross_entropy", "pallas_gpu", "vocab-32k", "float32", "backward", BOTH, 115 * MB),
    Case("linear_cross_entropy", "pallas_tpu", "bible-gpt", "float32", "backward", BOTH, 2 * MB),
]
# An LSTM has the sums of the gates of all steps in one array, which begins as x W_x and ends as ȧ:
# 16 MB of language-model, 64 MB of gnmt. Beside it are outputs, 4 or 16 MB, before they are turned
# to have the batch first, and for the backward pass c in float32, 4 or 32 MB. On a GPU cuBLAS has
# another 32 MB; what a TPU's fast memory holds of all that is not counted.
CASES += [
    *both_ways("lstm", "vowels-first", "float32", LSTM, 34, 35, 3, 4),
    *both_ways("lstm", "sentiment", "float32", LSTM, 37, 39, 6, 9),
    *both_ways("lstm", "sentiment-reversed", "float32", LSTM, 37, 39, 6, 9),
    *both_ways("lstm", "sentiment", "bfloat16", LSTM, 35, 37, 4, 6),
    *both_ways("lstm", "language-model", "float32", LSTM, 49, 58, 22, 26),
    *both_ways("lstm", "gnmt", "bfloat16", LSTM, 98, 132, 66, 132),
]
