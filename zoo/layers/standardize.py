"""Standardisation of raw inputs with the training data's statistics."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Num
from numpy.typing import ArrayLike


class Standardize(nnx.Module):
    """`y = (x - mean) / std` in float32, with fixed statistics per feature, or one for all.

    The statistics are `nnx.BatchStat`s: no optimiser touches them, and every checkpoint and every
    exported model carries them, so that raw pixels or raw measurements go in wherever it runs.
    """

    def __init__(self, mean: ArrayLike | float | int, std: ArrayLike | float | int):
        mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if mean.shape != std.shape:
            raise ValueError(f"mean has shape {mean.shape}, std {std.shape}; they must agree")
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError(
                f"{mean=} must be finite and {std=} positive; give a constant feature the std 1"
            )
        self.mean = nnx.BatchStat(jnp.asarray(mean))
        self.std = nnx.BatchStat(jnp.asarray(std))

    def __call__(self, x: Num[Array, "*S"]) -> Float[Array, "*S"]:
        if self.mean.ndim and self.mean.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"the last axis of x is {x.shape[-1]}, the statistics are for "
                f"{self.mean.shape[-1]} features"
            )
        return (x.astype(jnp.float32) - self.mean) / self.std
