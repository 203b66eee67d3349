"""Faster implementations of `zoo.functional`, one folder an operation, each proved equal to it.

model = zoo.create("convnet-32-64", rngs=nnx.Rngs(0), ops=kernels.best())
"""

from typing import TYPE_CHECKING, Any

from kernels.memory import keep_freed_memory

if TYPE_CHECKING:
    from kernels.choice import best, compiler_options, describe, for_second_derivatives

__all__ = [
    "best",
    "compiler_options",
    "describe",
    "for_second_derivatives",
    "keep_freed_memory",
]


def __getattr__(name: str) -> Any:
    """What needs JAX is imported when it is asked for: memory is seen to before JAX has threads."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kernels import choice

    return getattr(choice, name)
