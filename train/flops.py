"""Floating-point operations of a program, counted in what JAX traced of it.

    count(jax.make_jaxpr(step)(*arguments))

Matrix products and convolutions alone, at two operations a multiplication with its addition: they
are all but some hundredths of what a network computes, and what a chip's peak is the speed of. A
loop counts its trips. So does no compiler: that of TPUs counts the body of a loop once, and that of
GPUs tells nothing.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax.extend.core


def count(jaxpr: Any) -> int:
    """Operations of one run; of a conditional those of the branch with most."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)  # with its constants or without
    return sum(_of_equation(equation) for equation in inner.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        # Of the kernel's axes the first is that of the outputs; zeros between inputs cost nothing.
        _, *window = (
            equation.invars[1].aval.shape[a] for a in params["dimension_numbers"].rhs_spec
        )
        operations = 2 * _size(equation.outvars[0]) * math.prod(window)
        return operations // math.prod(params["lhs_dilation"])
    inside = [count(found) for value in params.values() for found in _jaxprs(value)]
    if name == "cond":
        return max(inside, default=0)
    return sum(inside) * _repeated(name, params)


def _repeated(name: str, params: dict[str, Any]) -> int:
    """How often what is inside runs, over all devices; of a loop without an end it is once."""
    if name == "scan":
        return params["length"]
    if name == "shard_map":  # its shapes are those of one device
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    return 1


def _jaxprs(value: Any) -> Iterator[Any]:
    if isinstance(value, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _jaxprs(item)


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)
