"""Layers: they own parameters and call `zoo.functional`; nothing else happens in them."""

from zoo.layers.conv import Conv, ConvTranspose
from zoo.layers.dropout import Dropout
from zoo.layers.embed import Embed
from zoo.layers.linear import Linear
from zoo.layers.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from zoo.layers.standardize import Standardize

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Dropout",
    "Embed",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "Standardize",
]
