"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LSTMSpec:
    """One LSTM layer over a batch of sequences."""

    batch: int
    steps: int  # T
    in_dim: int  # D
    dim: int  # H


SPECS = {
    "vowels-first": LSTMSpec(batch=32, steps=29, in_dim=12, dim=64),
    "sentiment": LSTMSpec(batch=32, steps=64, in_dim=32, dim=100),
    "language-model": LSTMSpec(batch=32, steps=128, in_dim=256, dim=256),
}
