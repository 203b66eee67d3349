"""The dense layer."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from zoo.functional.init import Initializer, lecun_normal
from zoo.functional.ops import Ops


class Linear(nnx.Module):
    """`y = x W + b` on the last axis; W is `[in_dim, out_dim]`.

    Parameters are float32; the product is taken in the input's dtype. `axes` names those of W, so
    that whoever spreads a model over devices knows what to cut. Where W is several matrices side by
    side that are to be cut alike, as those of queries, keys and values, `parts` is how many equal
    ones, and y is `[..., parts, out_dim / parts]`.
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
        parts: int | None = None,
        ops: Ops = Ops(),
    ):
        kernel = kernel_init(rngs.params(), (in_dim, out_dim), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=axes, parts=parts)
        self.bias = nnx.Param(jnp.zeros(out_dim), axes=axes[1:], parts=parts) if use_bias else None
        self.in_dim, self.parts = in_dim, parts
        self.dense = ops.dense

    def __call__(self, x: Float[Array, "... in_dim"]) -> Float[Array, "..."]:
        if x.shape[-1] != self.in_dim:
            raise ValueError(
                f"x has {x.shape[-1]} features, Linear expects {self.in_dim}; "
                "did you forget to flatten?"
            )
        bias = None if self.bias is None else self.bias.astype(x.dtype)
        y = self.dense(x, self.kernel.astype(x.dtype), bias)
        return y if self.parts is None else y.reshape(*x.shape[:-1], self.parts, -1)

    def part(self, parts: slice) -> tuple[Float[Array, "in_dim *out"], Float[Array, "*out"] | None]:
        """W and b of some of the parts, with as many axes as the whole has."""

        def taken(whole: Array, first: tuple[int, ...]) -> Array:
            some = whole.reshape(*first, self.parts, -1)[..., parts, :]
            return some.reshape(*first, *some.shape[len(first) : whole.ndim - 1], -1)

        bias = None if self.bias is None else taken(self.bias[...], ())
        return taken(self.kernel[...], (self.in_dim,)), bias
