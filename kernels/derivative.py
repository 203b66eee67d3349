"""What the Pallas kernels say to who differentiates their gradients."""

from collections.abc import Callable
from typing import Any

import jax

Pass = Callable[..., Any]


def differentiable_no_more(kernel: str, instead: str, *static: int) -> Callable[[Pass], Pass]:
    """Marks a pass of a kernel: its derivative raises a reason, where JAX would fail inside of it.

    Args:
        kernel: its name in the error.
        instead: a function that can be differentiated further.
        static: which arguments of the pass are no arrays.
    """

    def guard(function: Pass) -> Pass:
        guarded = jax.custom_jvp(function, nondiff_argnums=static)

        @guarded.defjvp
        def refuse(*_):
            raise NotImplementedError(f"the gradient of {kernel} has no derivative; use {instead}")

        return guarded

    return guard
