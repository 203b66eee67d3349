"""Faster implementations of `zoo.functional`, one folder an operation, each proved equal to it.

model = zoo.create("convnet-32-64", rngs=nnx.Rngs(0), ops=kernels.best())
model = zoo.create("gpt-nano", rngs=nnx.Rngs(0), ops=kernels.choose(attention="xla"))

`best` takes what was measured to be the fastest on a platform; `choose` takes what it is told, and
raises the reason where that cannot run. Each folder's docstring says which back ends there are.
"""

from typing import TYPE_CHECKING, Any

from kernels.memory import keep_freed_memory

if TYPE_CHECKING:
    from kernels.choice import (
        best,
        choose,
        compiler_options,
        describe,
        for_second_derivatives,
        summary,
    )

__all__ = [
    "best",
    "choose",
    "compiler_options",
    "describe",
    "for_second_derivatives",
    "keep_freed_memory",
    "summary",
]


def __getattr__(name: str) -> Any:
    """What needs JAX is imported when it is asked for: memory is seen to before JAX has threads."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kernels import choice

    return getattr(choice, name)
