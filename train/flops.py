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

PRODUCTS = ("dot_general", "conv_general_dilated")


def count(jaxpr: Any) -> int:
    """Operations of one run; of a conditional those of the branch with most."""
    return sum(times * _operations(equation) for equation, times in products(jaxpr))


def products(jaxpr: Any) -> Iterator[tuple[Any, int]]:
    """The equations that :func:`count` counts, and how often each is computed in one run."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)  # with its constants or without
    for equation in inner.eqns:
        if equation.primitive.name in PRODUCTS:
            yield equation, 1
            continue
        inside = [found for value in equation.params.values() for found in _jaxprs(value)]
        if equation.primitive.name == "cond":
            inside = [max(inside, key=count)]
        repeated = _repeated(equation.primitive.name, equation.params) if inside else 0
        for found in inside:
            yield from ((product, repeated * times) for product, times in products(found))


def _operations(equation: Any) -> int:
    params = equation.params
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    # Of the kernel's axes the first is that of the outputs; zeros between inputs cost nothing.
    _, *window = (equation.invars[1].aval.shape[a] for a in params["dimension_numbers"].rhs_spec)
    operations = 2 * _size(equation.outvars[0]) * math.prod(window)
    return operations // math.prod(params["lhs_dilation"])


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
