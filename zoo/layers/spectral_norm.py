"""Spectral normalisation of a layer (Miyato et al. 2018)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from zoo.layers.conv import Conv
from zoo.layers.linear import Linear


class SpectralNorm(nnx.Module):
    """`y = W x / σ(W) + b`: a layer whose kernel has the largest singular value 1.

    W is the kernel as a matrix `[window · in, out]`, b the layer's bias if it has one. One step of
    the power iteration before each training pass follows σ (algorithm 1),

        v ← W u / ‖W u‖,    u ← Wᵀ v / ‖Wᵀ v‖,    σ = vᵀ W u

    and a view with `deterministic=True` takes no step. Gradients flow through W in σ and not
    through u and v.
    """

    def __init__(self, layer: Linear | Conv, *, rngs: nnx.Rngs):
        rows, out_dim = layer.kernel.size // layer.kernel.shape[-1], layer.kernel.shape[-1]
        self.layer = layer
        self.u = nnx.BatchStat(_unit(jax.random.normal(rngs.params(), (out_dim,))))
        self.v = nnx.BatchStat(jnp.zeros(rows))
        self.v[...] = _unit(self._matrix() @ self.u[...])
        self.deterministic = False

    def __call__(self, x: Float[Array, "B *I C"]) -> Float[Array, "B *J O"]:
        matrix = self._matrix()
        if not self.deterministic:
            fixed = jax.lax.stop_gradient(matrix)
            self.v[...] = _unit(fixed @ self.u[...])
            self.u[...] = _unit(fixed.T @ self.v[...])
        sigma = self.v[...] @ matrix @ self.u[...]
        bias = 0 if self.layer.bias is None else self.layer.bias.astype(x.dtype)
        return (self.layer(x) - bias) / sigma.astype(x.dtype) + bias

    def _matrix(self) -> Float[Array, "rows O"]:
        return self.layer.kernel.reshape(-1, self.layer.kernel.shape[-1])

    def set_view(self, deterministic: bool | None = None):
        """For `nnx.view`: leave u and v as they are."""
        if deterministic is not None:
            self.deterministic = deterministic


def _unit(x: Float[Array, " N"]) -> Float[Array, " N"]:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)
