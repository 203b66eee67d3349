"""Layers: they own parameters and call `zoo.functional`; nothing else happens in them."""

from zoo.layers.attention import KVCache, MultiHeadAttention
from zoo.layers.codec import Decoder, Encoder
from zoo.layers.conv import Conv, ConvTranspose
from zoo.layers.dropout import Dropout
from zoo.layers.embed import Embed
from zoo.layers.experts import Experts
from zoo.layers.feed_forward import FeedForward, GatedFeedForward
from zoo.layers.linear import Linear
from zoo.layers.memory import Memory
from zoo.layers.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from zoo.layers.pointer import Pointer
from zoo.layers.recurrent import GRU, LSTM, RNN, LSTMState
from zoo.layers.spectral_norm import SpectralNorm
from zoo.layers.stack import Stack
from zoo.layers.standardize import Standardize

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Decoder",
    "Dropout",
    "Embed",
    "Encoder",
    "Experts",
    "FeedForward",
    "GatedFeedForward",
    "GroupNorm",
    "KVCache",
    "LSTMState",
    "LayerNorm",
    "Linear",
    "Memory",
    "MultiHeadAttention",
    "Pointer",
    "RMSNorm",
    "SpectralNorm",
    "Stack",
    "Standardize",
]
