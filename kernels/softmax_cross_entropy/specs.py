"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CrossEntropySpec:
    """The last vectors of so many tokens, and the vocabulary that they choose from."""

    rows: int  # tokens of a batch
    dim: int  # D
    vocab: int  # V


SPECS = {
    "bible-gpt": CrossEntropySpec(rows=768, dim=128, vocab=65),
    "translate-en-es": CrossEntropySpec(rows=1024, dim=256, vocab=8000),
    "vocab-32k": CrossEntropySpec(rows=1024, dim=256, vocab=32_000),
    "gpt2-small": CrossEntropySpec(rows=8192, dim=768, vocab=50_257),
    "llama-8b": CrossEntropySpec(rows=8192, dim=4096, vocab=128_256),
}
