"""What the backends share: the arithmetic of a block of rows, and the rule of differentiation.

With ρ = 1/√(mean((x - μ)²) + ε), where μ is 0 in rms_norm, x̂ = ρ(x - μ) and y = scale ⊙ x̂ + bias.
A dot is the gradient with respect to a letter, and g = scale ⊙ ẏ:

    ẋ = ρ (g - mean(g) - x̂ mean(g ⊙ x̂)),   Σ over rows of ẏ ⊙ x̂ for scale, and of ẏ for bias

where mean(g) is there only because of μ, so not in rms_norm. All arithmetic is float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels.derivative import differentiable_no_more
from kernels.varying import alike

# For the passes of a back end in Pallas, given which of their arguments are no arrays.
guarded = partial(
    differentiable_no_more, "the norm kernel", "kernels.layer_norm.xla or zoo.functional.norm"
)


@dataclass(frozen=True)
class Form:
    """What is known before any number: layer or rms norm, ε, and whether Pallas interprets."""

    centred: bool
    epsilon: float
    interpret: bool = False


class Passes(NamedTuple):
    """A backend over `[rows, D]`: both take and give arrays; None for a scale or bias left out.

    forward(x, scale, bias, form) -> y, and what the backward pass shall be given of it
    backward(dy, x, scale, kept, form) -> dx, dscale, dbias; of the last two the dtype is free
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., tuple[Array, Array, Array]]


def normalized(
    x: Float[Array, "... D"], scale: Array | None, bias: Array | None, form: Form, passes: Passes
) -> Float[Array, "... D"]:
    """y, differentiable backwards by the backend's own pass."""
    if not x.size:
        return x
    rows = x.reshape(-1, x.shape[-1])
    y: Any = _normalized(*alike(rows, scale, bias), form, passes)
    return y.reshape(x.shape)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalized(x: Array, scale: Array | None, bias: Array | None, form: Form, passes: Passes):
    return passes.forward(x, scale, bias, form)[0]


def _forward(x: Array, scale: Array | None, bias: Array | None, form: Form, passes: Passes):
    y, kept = passes.forward(x, scale, bias, form)
    return y, (x, scale, bias, kept)


def _backward(form: Form, passes: Passes, residuals, dy: Array):
    x, scale, bias, kept = residuals
    dx, dscale, dbias = passes.backward(dy, x, scale, kept, form)
    dscale = None if scale is None else dscale.astype(scale.dtype)
    return dx, dscale, None if bias is None else dbias.astype(bias.dtype)


_normalized.defvjp(_forward, _backward)


def row_mean(x: Array, dim: int) -> Array:
    """`[rows, width] -> [rows, 1]`, where x is 0 from column `dim` on."""
    return jnp.sum(x, axis=1, keepdims=True) / dim


def standardized(x: Array, form: Form, dim: int, real: Array | None) -> tuple[Array, Array]:
    """x̂ and ρ of a block that may be wider and higher than the rows in it.

    Args:
      x: `[rows, width]` in float32, 0 from column `dim` on.
      form: which norm.
      dim: D.
      real: where in the block there is something of x; None where everywhere. x̂ is 0 elsewhere.
    """
    if form.centred:
        x = where(real, x - row_mean(x, dim))
    rho = lax.rsqrt(row_mean(x * x, dim) + form.epsilon)
    return where(real, x * rho), rho


def input_gradient(
    g: Array, x_hat: Array, rho: Array, form: Form, mean: Callable[[Array], Array]
) -> Array:
    """ẋ of some rows, from g = scale ⊙ ẏ and `mean`, which takes the mean of each."""
    dx = g - x_hat * mean(g * x_hat)
    if form.centred:
        dx = dx - mean(g)
    return dx * rho


def where(real: Array | None, x: Array) -> Array:
    """x where it is real, 0 elsewhere."""
    return x if real is None else jnp.where(real, x, 0)


def check(x: Array, max_dim: int, backend: str, max_size: int | None = None) -> None:
    """Raises NotImplementedError for what a Pallas backend cannot serve."""
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(
            f"{backend}: x is {x.dtype}, the kernel takes float32 and bfloat16; cast x, or use "
            "zoo.functional.norm"
        )
    if x.shape[-1] > max_dim:
        raise NotImplementedError(
            f"{backend}: a row has {x.shape[-1]} features, a block holds rows of at most "
            f"{max_dim}; use zoo.functional.norm"
        )
    if max_size is not None and x.size >= max_size:
        raise NotImplementedError(
            f"{backend}: x has {x.size} elements, the kernel takes fewer than {max_size}; cut the "
            "batch, or use zoo.functional.norm"
        )
