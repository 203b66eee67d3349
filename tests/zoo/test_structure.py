"""Rules of the tree that a syntax tree shows: from scratch, one way of imports, no idle field."""

import ast
from pathlib import Path

import pytest
from flax import nnx

ZOO = Path(__file__).resolve().parents[2] / "zoo"
FILES = sorted(ZOO.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ZOO)))

# All that `zoo` may take from Flax: what holds parameters, and no layer.
ALLOWED = {
    "BatchStat", "Dict", "List", "Module", "Param", "Rngs", "Variable",
    "eval_shape", "merge", "split", "state", "update", "view",
}  # fmt: skip
LEVELS = ["functional", "layers", "models"]  # each may import those before it


def imports(tree):
    """Dotted names that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@FILE
def test_no_stock_layer_is_used(path):
    used = {
        node.attr
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "nnx"
    }
    assert used <= ALLOWED, f"nnx.{sorted(used - ALLOWED)} is not from scratch"
    flax = {name for name in imports(TREES[path]) if name.startswith(("flax", "haiku", "equinox"))}
    assert flax <= {"flax.nnx"}
    stock = {"jax.nn", "jax.experimental.stax", "jax.example_libraries"}
    assert not [name for name in imports(TREES[path]) if name.startswith(tuple(stock))]
    assert "jax.nn" not in {ast.unparse(node) for node in ast.walk(TREES[path])
                            if isinstance(node, ast.Attribute)}  # fmt: skip


def test_what_is_allowed_exists_in_flax():
    assert all(hasattr(nnx, name) for name in ALLOWED)


@FILE
def test_imports_point_one_way(path):
    level = path.relative_to(ZOO).parts[0]
    for name in imports(TREES[path]):
        root, *rest = name.split(".")
        assert root not in ("train", "kernels", "serve", "benchmarks", "tests"), name
        if root == "zoo" and level in LEVELS:
            assert rest[0] in LEVELS[: LEVELS.index(level) + 1], f"{path} imports {name}"
            if level == "models":
                assert rest[0] != "models", f"a model file imports another: {name}"


def configs(tree):
    """The definitions of config classes in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            yield node


@FILE
def test_every_config_field_is_read(path):
    tree = TREES[path]
    fields = {
        item.target.id
        for node in configs(tree)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    # Validation reads every field; what counts is the code outside the config, and its properties.
    read = {
        attribute.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name != "__post_init__"
        for attribute in ast.walk(node)
        if isinstance(attribute, ast.Attribute)
    }
    assert not fields - read, f"config fields never read: {sorted(fields - read)}"


@FILE
def test_every_file_and_public_definition_says_what_it_is(path):
    tree = TREES[path]
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
