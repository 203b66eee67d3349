"""Imports point one way, layers are our own, and listing things starts nothing heavy.

The first two are read from the syntax trees, so that a late import inside a function counts too.
"""

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from flax import nnx

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("zoo", "kernels", "train", "serve", "benchmarks")

# What each part may import besides itself; the longest name that fits a module decides.
MAY_IMPORT = {
    "zoo.functional": (),
    "zoo.layers": ("zoo.functional",),
    "zoo.models": ("zoo.functional", "zoo.layers"),
    "zoo.pretrained": ("zoo.functional", "zoo.layers", "zoo.models"),
    "zoo": (),
    "kernels": ("zoo.functional",),
    "train": ("zoo", "kernels"),
    "serve": ("zoo", "kernels", "train"),
    "benchmarks": ("zoo", "kernels", "train"),
}


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, `from a import b` as `a.b`."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def part_of(name: str) -> str | None:
    return max((part for part in MAY_IMPORT if within(name, part)), key=len, default=None)


def test_imports_point_one_way():
    wrong = []
    for path in python_files(*PACKAGES):
        own = part_of(module_name(path))
        assert own, f"{path} belongs to no part of the import order"
        for line, name in imports(path):
            if not within(name, "tests") and not any(within(name, p) for p in PACKAGES):
                continue
            if not any(within(name, part) for part in (own, *MAY_IMPORT[own])):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_a_model_file_never_imports_another():
    models = [p for p in python_files("zoo/models") if p.name != "__init__.py"]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in models
        for line, name in imports(path)
        if within(name, "zoo.models") and not within(name, module_name(path))
    ]
    assert models
    assert not wrong, "\n".join(wrong)


def stock_names() -> set[str]:
    """Layers, activations and initialisers that flax.nnx offers and this project writes itself."""
    homes = ("flax.nnx.nn", "flax.linen", "jax._src.nn")  # it lends pooling and activations

    def home(value: object) -> str:  # of a class or function, or the name of a module
        return str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))

    return {n for n in dir(nnx) if any(within(home(getattr(nnx, n)), part) for part in homes)}


def stock_uses(path: Path, stock: set[str]) -> Iterator[tuple[int, str]]:
    """Every `nnx.Linear`, `flax.nnx.Linear` or `from flax.nnx import Linear` in a file."""
    for line, name in imports(path):
        last = name.split(".")[-1]
        if any(within(name, part) for part in ("flax.linen", "flax.nnx.nn")) or (
            within(name, "flax.nnx") and last in stock
        ):
            yield line, name
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in stock
            and ast.unparse(node.value) in ("nnx", "flax.nnx")
        ):
            yield node.lineno, ast.unparse(node)


def test_no_stock_layer_outside_parity_and_benchmarks():
    stock = stock_names()
    assert {"Linear", "Conv", "LSTMCell", "MultiHeadAttention", "BatchNorm", "relu"} <= stock
    assert (
        not {"Module", "Param", "Rngs", "List", "Optimizer", "split", "view", "BatchStat"} & stock
    )
    files = python_files("zoo", "kernels", "train", "serve", "tests")
    wrong = [
        f"{path.relative_to(ROOT)}:{line} uses {name}"
        for path in files
        if not within(module_name(path), "tests.parity")
        for line, name in stock_uses(path, stock)
    ]
    assert not wrong, "\n".join(wrong)


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a Python process has imported by its end."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {row.rsplit("|", 1)[1].strip() for row in rows}


@pytest.mark.parametrize(
    "arguments", [("-c", "import zoo, train"), ("-m", "train", "list")], ids=" ".join
)
def test_starts_nothing_heavy(arguments):
    heavy = {"jax", "flax", "optax", "orbax", "tensorflow_datasets", "matplotlib", "sklearn"}
    found = loaded_by(*arguments)
    assert "train" in found
    assert not heavy & found


def test_list_answers_within_two_seconds():
    """In processor time, which on an idle machine is the time that passes."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "train", "list"], cwd=ROOT, check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 2
