"""What a kernel must reproduce of its reference: the value and the gradient of every argument."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from tests.close import assert_close


def assert_same(
    kernel: Callable[..., jax.Array],
    reference: Callable[..., jax.Array],
    *arguments: jax.Array,
    kind: Literal["leaf", "bf16"] = "leaf",
    forward_mode: bool = True,
) -> None:
    """Compare values, gradients for a random cotangent, and derivatives along random tangents."""
    shape = jax.eval_shape(reference, *arguments)
    cotangent = random(shape.shape, 10, str(shape.dtype))
    tangents = [random(a.shape, 11 + i, str(a.dtype)) for i, a in enumerate(arguments)]

    def everything(function, arguments, cotangent, tangents):
        y, pullback = jax.vjp(function, *arguments)
        along = jax.jvp(function, arguments, tangents)[1] if forward_mode else y
        return y, pullback(cotangent), along

    compiled = jax.jit(everything, static_argnums=0)
    got = compiled(kernel, arguments, cotangent, tuple(tangents))
    want = compiled(reference, arguments, cotangent, tuple(tangents))
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs, kind=kind)


def random(shape: tuple[int, ...], seed: int, dtype: str = "float32") -> jax.Array:
    """Standard normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)
