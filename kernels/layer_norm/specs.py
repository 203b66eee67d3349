"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerNormSpec:
    """Layer norm over the last of these axes."""

    leading: tuple[int, ...]
    dim: int


SPECS = {
    "gpt-nano": LayerNormSpec(leading=(12, 64), dim=128),
    "bert-base": LayerNormSpec(leading=(2, 128), dim=768),
}
