"""How arrays differ between devices, as `jax.shard_map` has it checked by default (`check_vma`)."""

from typing import Any

import jax
from jax import lax
from jaxtyping import Array


def alike(*arrays: Array | None) -> list[Any]:
    """The arrays, each made to differ between devices wherever any of them does.

    So the result of a kernel differs just as its arguments do, whichever those are. The gradient of
    an array that was the same everywhere is the sum over the devices, as JAX wants it.
    """
    every = frozenset[Any]().union(*(_axes(a) for a in arrays if a is not None))

    def vary(array: Array | None) -> Any:
        return (
            None if array is None else lax.pcast(array, tuple(every - _axes(array)), to="varying")
        )

    return [vary(array) for array in arrays]


def _axes(array: Array) -> frozenset[Any]:
    """Of the mesh, along which devices may have different numbers."""
    return jax.typeof(array).manual_axis_type.varying


def output(like: Array, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """A kernel's result, which under `shard_map` differs between devices where `like` does."""
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(like).manual_axis_type)
