"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LSTMSpec:
    """One LSTM layer over a batch of sequences."""

    batch: int
    steps: int  # T
    in_dim: int  # D
    dim: int  # H
    padded: bool = False  # sequences are of unequal length
    reverse: bool = False  # the last step comes first


SPECS = {
    "vowels-first": LSTMSpec(batch=32, steps=29, in_dim=12, dim=64, padded=True),
    "sentiment": LSTMSpec(batch=32, steps=64, in_dim=32, dim=100, padded=True),
    "sentiment-reversed": LSTMSpec(
        batch=32, steps=64, in_dim=32, dim=100, padded=True, reverse=True
    ),
    "language-model": LSTMSpec(batch=32, steps=128, in_dim=256, dim=256),
    "gnmt": LSTMSpec(batch=128, steps=64, in_dim=1024, dim=1024, padded=True),
}
