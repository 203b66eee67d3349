"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DenseSpec:
    """One dense layer over inputs with these leading axes."""

    leading: tuple[int, ...]
    in_dim: int
    out_dim: int


SPECS = {
    "convnet-dense": DenseSpec(leading=(64,), in_dim=3136, out_dim=128),
    "gpt-mlp": DenseSpec(leading=(12, 64), in_dim=128, out_dim=512),
}
