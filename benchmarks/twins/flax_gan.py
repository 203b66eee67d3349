"""DCGAN from stock `flax.nnx` layers, with batch norm in both networks."""

from itertools import pairwise

import jax
from flax import nnx

from zoo.models.gan import GANConfig


class Generator(nnx.Module):
    """`zoo.models.gan.Generator` without classes."""

    def __init__(self, config: GANConfig, rngs: nnx.Rngs):
        dims = config.dims[::-1]
        self.side = config.smallest_size
        self.first = nnx.Linear(
            config.latent_dim, self.side**2 * dims[0], use_bias=False, rngs=rngs
        )
        self.norms = nnx.List([_batch_norm(dim, rngs) for dim in dims])
        self.convs = nnx.List([_doubling(a, b, False, rngs) for a, b in pairwise(dims)])
        self.convs.append(_doubling(dims[-1], config.in_channels, True, rngs))

    def __call__(self, z: jax.Array) -> jax.Array:
        x = self.first(z).reshape(z.shape[0], self.side, self.side, -1)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(nnx.relu(norm(x)))
        return nnx.tanh(x)


class Discriminator(nnx.Module):
    """`zoo.models.gan.Discriminator` without classes and spectral norm."""

    def __init__(self, config: GANConfig, rngs: nnx.Rngs):
        dims = config.dims
        first = nnx.Conv(config.in_channels, dims[0], (4, 4), strides=2, rngs=rngs)
        self.convs = nnx.List(
            [
                first,
                *[
                    nnx.Conv(a, b, (4, 4), strides=2, use_bias=False, rngs=rngs)
                    for a, b in pairwise(dims)
                ],
            ]
        )
        self.norms = nnx.List([None, *[_batch_norm(dim, rngs) for dim in dims[1:]]])
        self.last = nnx.Linear(config.smallest_size**2 * dims[-1], 1, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            x = nnx.leaky_relu(x if norm is None else norm(x), 0.2)
        return self.last(x.reshape(x.shape[0], -1))[:, 0]


def _batch_norm(dim: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(dim, momentum=0.9, epsilon=1e-5, rngs=rngs)


def _doubling(in_dim: int, out_dim: int, use_bias: bool, rngs: nnx.Rngs) -> nnx.ConvTranspose:
    return nnx.ConvTranspose(
        in_dim, out_dim, (4, 4), strides=2, transpose_kernel=True, use_bias=use_bias, rngs=rngs
    )
