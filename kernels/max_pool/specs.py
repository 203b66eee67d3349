"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """One square max pooling of a batch of square images."""

    batch: int
    size: int  # I, image side
    dim: int  # C
    window: int = 2
    stride: int = 2
    pad: int = 0  # rows at each end


SPECS = {
    "convnet-first": PoolSpec(batch=64, size=28, dim=32),
    "convnet-second": PoolSpec(batch=64, size=14, dim=64),
    "resnet-stem": PoolSpec(batch=8, size=56, dim=64, window=3, stride=2, pad=1),
}
