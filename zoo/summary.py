"""What a model costs: parameters, bytes and FLOPs, in all and by part.

    print(zoo.summarize(zoo.create("resnet18", rngs=nnx.Rngs(0)), (1, 224, 224, 3)))

The model is traced and never run, so one built abstractly by `nnx.eval_shape` works too, however
large. FLOPs are counted from the traced operations: two for each multiply-add of a matrix product
or a convolution, zero padding included, which is the convention of published counts; element-wise
work, under one per cent of these models, is left out.
"""

import functools
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from rich.console import Console
from rich.table import Table

_SCOPE = "part:"  # marks our names among the scopes of a traced operation


@dataclass(frozen=True)
class Row:
    """One part of a model, together with everything inside it."""

    path: str  # as in Python, "blocks[0].conv1"; "" is the model
    kind: str  # class name
    output: str  # shape of what it returns, "" when it was not called
    parameters: int  # numbers that an optimiser changes
    statistics: int  # numbers that it does not, such as batch norm's running moments
    bytes: int  # of both
    flops: int  # of one forward pass


@dataclass(frozen=True)
class Summary:
    """The cost of one forward pass; `print` it, or read the fields."""

    rows: tuple[Row, ...]  # the model itself, then its parts as they are called
    parameters: int
    statistics: int
    bytes: int
    flops: int

    def __rich__(self) -> Table:
        size, flops = _human(self.bytes, "B"), _human(self.flops, "FLOPs")
        table = Table(
            title=f"{self.rows[0].kind}: {self.parameters:,} parameters, {size}, {flops} forward"
        )
        for name in ("part", "layer", "output"):
            table.add_column(name)
        for name in ("parameters", "bytes", "FLOPs"):
            table.add_column(name, justify="right")
        for row in self.rows[1:]:
            parameters = f"{row.parameters:,}" if row.parameters else ""
            size = _human(row.bytes, "B") if row.bytes else ""
            flops = _human(row.flops, "") if row.flops else ""
            table.add_row(row.path, row.kind, row.output, parameters, size, flops)
        return table

    def __str__(self) -> str:
        page = io.StringIO()
        Console(file=page, width=110).print(self)
        return page.getvalue().rstrip()


def summarize(model: nnx.Module, *inputs: Any, depth: int = 2) -> Summary:
    """Count what `model(*inputs)` costs, without dropout and with running statistics.

    Args:
        model: any NNX module; only shapes are read.
        inputs: arrays, `jax.ShapeDtypeStruct`s, or tuples of ints, which stand for float32 shapes.
        depth: how many levels of parts the table shows; an item of a list is one level.
    """
    graphdef, state = nnx.split(nnx.view(model, deterministic=True, raise_if_not_found=False))
    outputs: dict[str, str] = {}

    def forward(state, *inputs):
        live = nnx.merge(graphdef, state)
        with _scope_names(live, outputs):
            return live(*inputs)

    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    jaxpr = jax.make_jaxpr(forward)(state, *map(_abstract, inputs)).jaxpr
    flops = Counter()
    for path, count in _products(jaxpr, ""):
        flops[path] += count
    parts = {path: part for path, part in _parts(model) if _depth(path) <= depth}
    called = [path for path in outputs if path in parts]
    rows = tuple(
        _row(path, parts[path], outputs.get(path, ""), flops)
        for path in dict.fromkeys([*called, *parts])
    )
    total = rows[0]
    return Summary(rows, total.parameters, total.statistics, total.bytes, total.flops)


def _abstract(x: Any) -> Any:
    if isinstance(x, tuple) and all(isinstance(size, int) for size in x):
        return jax.ShapeDtypeStruct(x, jnp.float32)
    return x


def _parts(module: nnx.Module, path: str = "") -> Iterator[tuple[str, nnx.Module]]:
    """A module and all inside it; lists and dicts have no row of their own."""
    if isinstance(module, nnx.List):
        children = [(f"{path}[{index}]", child) for index, child in enumerate(module)]
    elif isinstance(module, nnx.Dict):
        children = [(f"{path}[{name!r}]", child) for name, child in module.items()]
    else:
        yield path, module
        prefix = f"{path}." if path else ""
        children = [(prefix + name, child) for name, child in vars(module).items()]
    for child_path, child in children:
        if isinstance(child, nnx.Module):
            yield from _parts(child, child_path)


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _row(path: str, part: nnx.Module, output: str, flops: Counter[str]) -> Row:
    _, params, rest = nnx.split(part, nnx.Param, ...)
    params = jax.tree.leaves(params)
    statistics = [x for x in jax.tree.leaves(rest) if jnp.issubdtype(x.dtype, jnp.number)]
    inside = (f"{path}.", f"{path}[")
    return Row(
        path=path,
        kind=type(part).__name__,
        output=output,
        parameters=sum(x.size for x in params),
        statistics=sum(x.size for x in statistics),
        bytes=sum(x.size * x.dtype.itemsize for x in params + statistics),
        flops=sum(
            count
            for scope, count in flops.items()
            if not path or scope == path or scope.startswith(inside)
        ),
    )


@contextmanager
def _scope_names(model: nnx.Module, outputs: dict[str, str]) -> Iterator[None]:
    """While open, every operation is traced under the path of the innermost part that ran it.

    Python finds `__call__` on the class, so it is the classes that are changed and changed back.
    """
    paths = {id(part): path for path, part in _parts(model)}
    classes = {type(part) for _, part in _parts(model)}
    plain = {cls: vars(cls)["__call__"] for cls in classes if "__call__" in vars(cls)}

    def scoped(call):
        @functools.wraps(call)
        def named_call(self, *args, **kwargs):
            path = paths.get(id(self))
            if path is None:
                return call(self, *args, **kwargs)
            outputs[path] = ""  # takes its place in the order of calls, before its own parts
            with jax.named_scope(f"{_SCOPE}{path}"):
                result = call(self, *args, **kwargs)
            outputs[path] = ", ".join(str(list(x.shape)) for x in jax.tree.leaves(result))
            return result

        return named_call

    try:
        for cls, call in plain.items():
            cls.__call__ = scoped(call)
        yield
    finally:
        for cls, call in plain.items():
            cls.__call__ = call


def _products(jaxpr: Any, scope: str) -> Iterator[tuple[str, int]]:
    """(path of the part, FLOPs) of every matrix product and convolution, however deep inside."""
    for eqn in jaxpr.eqns:
        scopes = re.findall(rf"{_SCOPE}([^/()]*)", str(eqn.source_info.name_stack))
        path = scopes[-1] if scopes else scope
        if eqn.primitive.name == "dot_general":
            yield path, _dot_flops(eqn)
        elif eqn.primitive.name == "conv_general_dilated":
            yield path, _conv_flops(eqn)
        elif eqn.primitive.name == "cond":
            branches = [list(_products(branch.jaxpr, path)) for branch in eqn.params["branches"]]
            yield from max(branches, key=lambda counts: sum(count for _, count in counts))
        else:
            repeats = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    for inner_path, count in _products(inner, path):
                        yield inner_path, repeats * count


def _dot_flops(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval
    return 2 * eqn.outvars[0].aval.size * math.prod(left.shape[axis] for axis in contracted)


def _conv_flops(eqn: Any) -> int:
    """Every position of the output meets every tap; in a transposed convolution, of the input."""
    x, kernel, y = eqn.invars[0].aval, eqn.invars[1].aval, eqn.outvars[0].aval
    layout = eqn.params["dimension_numbers"]
    out_dim = kernel.shape[layout.rhs_spec[0]]
    if math.prod(eqn.params["lhs_dilation"]) > 1:
        positions = x.size // x.shape[layout.lhs_spec[1]]
    else:
        positions = y.size // out_dim
    return 2 * positions * kernel.size


def _human(count: int | float, unit: str) -> str:
    """A count to three digits, 1000 to a prefix: `46.8 MB`."""
    for prefix in ("", "k", "M", "G"):
        if count < 999.5:
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    return f"{count:,.3g} T{unit}"
