"""The models again with stock layers: what a user of `flax.nnx` or of PyTorch would write.

Attributes are named as ours are, so that our weights find their places by path.
"""
