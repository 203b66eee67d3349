"""Normalisation layers: a learned scale and bias around `zoo.functional.norm`.

Parameters and statistics are float32 whatever the input's dtype; the output has the input's dtype.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from zoo.functional.norm import batch_moments
from zoo.functional.ops import Ops


def unsynced(moments: Any) -> Any:
    """The moments as they are: this device's batch is the whole batch."""
    return moments


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe & Szegedy 2015).

    In training it normalises with this batch's moments and updates the running ones,

        running ← decay · running + (1 - decay) · batch

    and in a view with `deterministic=True` it normalises with the running ones. `decay` is called
    `momentum` by Flax; PyTorch's `momentum` is `1 - decay`. The running variance is the biased one
    (divided by n), as in Flax; PyTorch's is n / (n - 1) times that. The biased one comes out the
    same on any number of devices.

    A view with `sync=f` passes the pair (mean, mean of squares) through `f` before use; with
    `f = lambda m: lax.pmean(m, "data")` the moments are those of the batch across all devices.
    """

    def __init__(
        self,
        dim: int,
        *,
        decay: float = 0.9,
        epsilon: float = 1e-5,
        initial_scale: float = 1.0,
        ops: Ops = Ops(),
    ):
        self.scale = nnx.Param(jnp.full(dim, initial_scale))
        self.bias = nnx.Param(jnp.zeros(dim))
        self.mean = nnx.BatchStat(jnp.zeros(dim))
        self.var = nnx.BatchStat(jnp.ones(dim))
        self.decay = decay
        self.epsilon = epsilon
        self.deterministic = False
        self.sync = unsynced
        self.batch_norm = ops.batch_norm

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        if self.deterministic:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, mean_square = self.sync(batch_moments(x))
            # Rounding may leave a channel that hardly varies a little below zero.
            var = jnp.maximum(mean_square - jnp.square(mean), 0)
            self.mean[...] = self.decay * self.mean + (1 - self.decay) * mean
            self.var[...] = self.decay * self.var + (1 - self.decay) * var
        return self.batch_norm(x, mean, var, self.scale[...], self.bias[...], epsilon=self.epsilon)

    def set_view(self, deterministic: bool | None = None, sync: Callable[[Any], Any] | None = None):
        """For `nnx.view`: use the running statistics; average the moments across devices."""
        if deterministic is not None:
            self.deterministic = deterministic
        if sync is not None:
            self.sync = sync


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis (Ba et al. 2016)."""

    def __init__(self, dim: int, *, epsilon: float = 1e-5, use_bias: bool = True, ops: Ops = Ops()):
        self.scale = nnx.Param(jnp.ones(dim))
        self.bias = nnx.Param(jnp.zeros(dim)) if use_bias else None
        self.epsilon = epsilon
        self.layer_norm = ops.layer_norm

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        bias = None if self.bias is None else self.bias[...]
        return self.layer_norm(x, self.scale[...], bias, epsilon=self.epsilon)


class GroupNorm(nnx.Module):
    """Group normalisation (Wu & He 2018): one group is layer norm over everything, `num_groups=dim`
    is instance norm."""

    def __init__(self, dim: int, *, num_groups: int = 32, epsilon: float = 1e-5, ops: Ops = Ops()):
        if num_groups < 1 or dim % num_groups:
            raise ValueError(f"{num_groups=} must divide {dim=}")
        self.scale = nnx.Param(jnp.ones(dim))
        self.bias = nnx.Param(jnp.zeros(dim))
        self.num_groups = num_groups
        self.epsilon = epsilon
        self.group_norm = ops.group_norm

    def __call__(self, x: Float[Array, "B *I C"]) -> Float[Array, "B *I C"]:
        return self.group_norm(
            x, self.scale[...], self.bias[...], num_groups=self.num_groups, epsilon=self.epsilon
        )


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation over the last axis (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, *, epsilon: float = 1e-6, ops: Ops = Ops()):
        self.scale = nnx.Param(jnp.ones(dim))
        self.epsilon = epsilon
        self.rms_norm = ops.rms_norm

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        return self.rms_norm(x, self.scale[...], epsilon=self.epsilon)
