"""House rules that a machine can check, chiefly: no config field is there for nothing.

A field counts as read when code outside its own `__post_init__` reads an attribute of that name,
and as changed by a test when some test gives it as a keyword, an override or an option.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import PACKAGES, ROOT, python_files, tree

TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".html", ""}


def config_classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    """Every class whose name ends with Config, and Recipe, which is the config of a run."""
    for path in python_files(*PACKAGES):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and re.search(r"Config$|^Recipe$", node.name):
                yield path, node


def fields(config: ast.ClassDef) -> list[str]:
    return [
        item.target.id
        for item in config.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "ClassVar" not in ast.unparse(item.annotation)
    ]


def attributes_read(node: ast.AST) -> Iterator[str]:
    """Names of attributes that code reads; what `__post_init__` checks is not yet used."""
    if isinstance(node, ast.FunctionDef) and node.name == "__post_init__":
        return
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield node.attr
    for child in ast.iter_child_nodes(node):
        yield from attributes_read(child)


def fields_changed(node: ast.AST) -> Iterator[str]:
    """Names that a test gives as `field=`, as `{"field": ...}` or in `--part.field`."""
    for child in ast.walk(node):
        if isinstance(child, ast.keyword) and child.arg:
            yield child.arg
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
            for option in re.findall(r"--([a-z0-9.-]+)", child.value):
                yield from option.replace("-", "_").split(".")


def test_every_config_field_is_read():
    read = {name for path in python_files(*PACKAGES) for name in attributes_read(tree(path))}
    unread = [
        f"{path.relative_to(ROOT)}: {config.name}.{name}"
        for path, config in config_classes()
        for name in fields(config)
        if name not in read
    ]
    assert not unread, "no code reads\n" + "\n".join(unread)


def test_every_config_field_is_changed_by_a_test():
    changed = {name for path in python_files("tests") for name in fields_changed(tree(path))}
    unchanged = [
        f"{path.relative_to(ROOT)}: {config.name}.{name}"
        for path, config in config_classes()
        for name in fields(config)
        if name not in changed
    ]
    assert not unchanged, "no test changes\n" + "\n".join(unchanged)


def test_every_config_is_frozen_and_keyword_only():
    loose = [
        f"{path.relative_to(ROOT)}: {config.name}"
        for path, config in config_classes()
        if "dataclass(frozen=True, kw_only=True)" not in map(ast.unparse, config.decorator_list)
    ]
    assert not loose, "\n".join(loose)


def test_every_file_says_what_it_is():
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files(*PACKAGES, "tests", "docs")
        if tree(path).body and not ast.get_docstring(tree(path))
    ]
    assert not silent, "no docstring at the top of\n" + "\n".join(silent)


def text_files() -> Iterator[Path]:
    """What a person wrote in this repository: not caches, environments, runs or data."""
    written = [p for p in ROOT.iterdir() if p.is_file()]
    for folder in (*PACKAGES, "tests", "docs", "constraints", ".ci"):
        written += sorted((ROOT / folder).rglob("*"))
    for path in written:
        if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
            yield path


# Each is written so that this file does not match itself.
FORBIDDEN = {
    "an open end": r"\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b",
    "a path of one machine": r"(?<![\w.~)}])/(tm[p]|wor[k]|roo[t]|hom[e]|User[s])/",
    "a package index's address": r"index-ur[l]|/simpl[e]/",
    "a silenced checker without a reason beside it": (
        r"^[^#]*# (type: ignor[e]|pyright: ignor[e]|noq[a])(\[[\w, -]*\]|: ?[A-Z0-9, ]+)?\s*$"
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_left_lying(what):
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if re.search(FORBIDDEN[what], line)
    ]
    assert not found, "\n".join(found)
