"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AttentionSpec:
    """One layer's attention over a batch of sequences, to themselves unless it says otherwise."""

    batch: int
    tokens: int  # T
    heads: int  # N
    kv_heads: int  # K, divides N
    width: int  # H
    causal: bool = True
    lengths: bool = False  # rows are padded
    segments: bool = False  # rows hold several documents
    num_keys: int | None = None  # S, where it is not T


SPECS = {
    "gpt-nano": AttentionSpec(batch=12, tokens=64, heads=4, kv_heads=4, width=32),
    "gpt2-small": AttentionSpec(batch=8, tokens=1024, heads=12, kv_heads=12, width=64),
    "bert-base": AttentionSpec(
        batch=32, tokens=512, heads=12, kv_heads=12, width=64, causal=False, lengths=True
    ),
    "vit-base": AttentionSpec(batch=64, tokens=197, heads=12, kv_heads=12, width=64, causal=False),
    "smollm2-135m": AttentionSpec(
        batch=4, tokens=2048, heads=9, kv_heads=3, width=64, segments=True
    ),
    "llama-8b": AttentionSpec(batch=1, tokens=8192, heads=32, kv_heads=8, width=128),
    "gemma-2b": AttentionSpec(batch=1, tokens=8192, heads=8, kv_heads=1, width=256),
    "long": AttentionSpec(batch=1, tokens=32_768, heads=4, kv_heads=1, width=128),
    # No model's: every rule together, and no size that fits a block.
    "every-rule": AttentionSpec(
        batch=3,
        tokens=1000,
        heads=6,
        kv_heads=2,
        width=80,
        lengths=True,
        segments=True,
        num_keys=1300,
    ),
}
