"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ConvTransposeSpec:
    """One square transposed convolution of a batch of square images."""

    batch: int
    size: int  # I, image side
    in_dim: int
    out_dim: int
    window: int = 4
    stride: int = 2


SPECS = {
    "dcgan28-first": ConvTransposeSpec(batch=64, size=7, in_dim=128, out_dim=64),
    "dcgan28-last": ConvTransposeSpec(batch=64, size=14, in_dim=64, out_dim=1),
    "dcgan64-first": ConvTransposeSpec(batch=64, size=4, in_dim=1024, out_dim=512),
    "dcgan64-second": ConvTransposeSpec(batch=64, size=8, in_dim=512, out_dim=256),
    "dcgan64-third": ConvTransposeSpec(batch=64, size=16, in_dim=256, out_dim=128),
    "dcgan64-last": ConvTransposeSpec(batch=64, size=32, in_dim=128, out_dim=3),
}
