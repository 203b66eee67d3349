"""Named shapes of real models, over which the backends are compared with the reference."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ConvSpec:
    """One square convolution of a batch of square images."""

    batch: int
    size: int  # I, image side
    in_dim: int
    out_dim: int
    window: int = 3
    stride: int = 1
    pad: int = 1  # rows at each end


SPECS = {
    "convnet-first": ConvSpec(batch=64, size=28, in_dim=1, out_dim=32),
    "convnet-second": ConvSpec(batch=64, size=14, in_dim=32, out_dim=64),
    "resnet18-stage1": ConvSpec(batch=32, size=28, in_dim=64, out_dim=64),
    "resnet18-stage2": ConvSpec(batch=32, size=14, in_dim=128, out_dim=128),
    "resnet18-stage3": ConvSpec(batch=32, size=7, in_dim=256, out_dim=256),
    "resnet18-stage4": ConvSpec(batch=32, size=4, in_dim=512, out_dim=512),
    "resnet18-halving": ConvSpec(batch=32, size=28, in_dim=64, out_dim=128, stride=2),
    "resnet18-shortcut": ConvSpec(
        batch=32, size=28, in_dim=64, out_dim=128, window=1, stride=2, pad=0
    ),
    "dcgan28-halving": ConvSpec(batch=64, size=14, in_dim=64, out_dim=128, window=4, stride=2),
    "resnet50-pointwise": ConvSpec(batch=32, size=14, in_dim=256, out_dim=64, window=1, pad=0),
}
