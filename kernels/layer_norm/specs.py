"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NormSpec:
    """The norm of a batch of sequences."""

    batch: int
    steps: int  # T
    dim: int  # D


SPECS = {
    "bible-gpt": NormSpec(batch=12, steps=64, dim=128),
    "bert-base": NormSpec(batch=32, steps=128, dim=768),
    "gpt2-xl": NormSpec(batch=4, steps=1024, dim=1600),  # 1600 is no multiple of 128
    "llama-70b": NormSpec(batch=1, steps=4096, dim=8192),
    "widest": NormSpec(batch=1, steps=64, dim=16384),  # that the kernels in Pallas take
    "gpt3-175b": NormSpec(batch=1, steps=2048, dim=12288),
}
