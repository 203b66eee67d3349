"""The dense layer."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from zoo.functional.init import Initializer, lecun_normal
from zoo.functional.ops import Ops


class Linear(nnx.Module):
    """`y = x W + b` on the last axis; W is `[in_dim, out_dim]`.

    Parameters are float32; the product is taken in the input's dtype. `axes` names those of W, so
    that whoever spreads a model over devices knows what to cut.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        rngs: nnx.Rngs,
        use_bias: bool = True,
        kernel_init: Initializer = lecun_normal,
        axes: tuple[str, str] = ("in", "out"),
        ops: Ops = Ops(),
    ):
        kernel = kernel_init(rngs.params(), (in_dim, out_dim), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=axes)
        self.bias = nnx.Param(jnp.zeros(out_dim), axes=axes[1:]) if use_bias else None
        self.in_dim = in_dim
        self.dense = ops.dense

    def __call__(self, x: Float[Array, "... in_dim"]) -> Float[Array, "... out_dim"]:
        if x.shape[-1] != self.in_dim:
            raise ValueError(
                f"x has {x.shape[-1]} features, Linear expects {self.in_dim}; "
                "did you forget to flatten?"
            )
        bias = None if self.bias is None else self.bias.astype(x.dtype)
        return self.dense(x, self.kernel.astype(x.dtype), bias)
