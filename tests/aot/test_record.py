"""What `benchmarks aot` and `tests.aot.record` write; the compilers' part is made up, so they run
anywhere.
"""

import json
import shutil
import sys

import jax
import pytest

from benchmarks import aot
from benchmarks.__main__ import main
from benchmarks.process import WorkerError
from tests.aot import record
from tests.aot.compilers import REQUIRED, marks
from train.targets import Target, target


@pytest.fixture
def written(monkeypatch, tmp_path):
    """A function that records some recipes in a file, and gives what it then holds."""
    bytes_of = {"h100": 100, "v5e": 200}
    flops_of = {"h100": None, "v5e": 7.0}  # CUDA's compiler counts none

    def compiled(chip, names):
        for name in names:
            figures = {"bytes": bytes_of[chip], "flops": flops_of[chip]}
            yield name, {"batch": {"inputs": [64, 3]}, "seconds": 1.5, **figures}

    monkeypatch.setattr(aot, "compiled", compiled)
    monkeypatch.setattr(aot, "PACKAGES", ("jax",))
    monkeypatch.setattr(Target, "missing", lambda self: None)
    said = []

    def run(*names):
        path = aot.write(names, said.append, tmp_path / "aot.json")
        return json.loads(path.read_text())["recipes"], said

    return run


EXPECTED = {
    "batch": {"inputs": [64, 3]},
    "flops": 7.0,
    "h100": {"bytes": 100},
    "v5e": {"bytes": 200},
}


def test_one_recipe_after_another(written):
    """In the table's order, and what was there stays."""
    assert written("digits-mlp")[0] == {"digits-mlp": EXPECTED}
    recipes, said = written("linear-diabetes")
    assert recipes == {"linear-diabetes": EXPECTED, "digits-mlp": EXPECTED}
    assert list(recipes) == ["linear-diabetes", "digits-mlp"]
    assert said[:2] == [
        "h100 digits-mlp: 100 bytes, compiled in 1.5 s",
        "v5e digits-mlp: 200 bytes, compiled in 1.5 s",
    ]


def test_a_step_that_does_not_compile(written, monkeypatch, tmp_path):
    """Nothing is written, and the error is the compiler's."""
    failed = iter([("digits-mlp", {"error": "Traceback: no such instruction"})])
    monkeypatch.setattr(aot, "compiled", lambda *_: failed)
    with pytest.raises(WorkerError, match="digits-mlp does not compile for h100:\nTraceback: no"):
        written("digits-mlp")
    assert not list(tmp_path.iterdir())


def test_mistakes(monkeypatch, capsys):
    assert main(["aot", "digits-mpl"]) == 2
    assert capsys.readouterr().err == (
        "error: no recipe 'digits-mpl'; did you mean 'digits-mlp'?\n"
    )
    monkeypatch.setattr(Target, "missing", lambda self: "h100 needs a thing; pip install it")
    assert main(["aot", "digits-mlp"]) == 2
    assert capsys.readouterr().err == "error: h100 needs a thing; pip install it\n"


def test_a_process_that_ends_early(monkeypatch):
    monkeypatch.setattr(aot.sys, "executable", shutil.which("false"))
    with pytest.raises(WorkerError, match="compiling for v5e ended with 1"):
        list(aot.compiled("v5e", ["digits-mlp"]))


def test_only_what_has_changed_is_compiled(monkeypatch):
    """The figures of a program that was recorded are the file's, which are made up here."""

    def step(factor):
        lowered = jax.jit(lambda x: factor * x).lower(jax.ShapeDtypeStruct((4,), "float32"))
        monkeypatch.setattr(aot, "lower_step", lambda name, chosen: (lowered, {}))
        return aot.compile_step("digits-mlp", target("v5e"), only_changed=True)

    monkeypatch.setattr(aot, "PACKAGES", ("jax",))
    monkeypatch.setattr(aot, "read", dict)
    program = step(2)["program"]
    monkeypatch.setattr(
        aot, "read", lambda: {"digits-mlp": {"v5e": {"program": program, "bytes": 7}}}
    )
    assert step(2)["bytes"] == 7
    assert step(3)["bytes"] == 32


@pytest.mark.parametrize("option", [[], ["--all"]])
def test_the_kernels_of_one_target(option, monkeypatch, tmp_path):
    """What the file has of others stays, and all is compiled only when that is asked for."""
    file = tmp_path / "kernels.json"
    file.write_text('{"v4": {"a": {}}, "v5e": {"b": {}}}')
    monkeypatch.setattr(record, "FILE", file)
    asked = []

    def compiled(name, *, only_changed):
        asked.append((name, only_changed))
        return {"c": {"temp_bytes": 7}}

    monkeypatch.setattr(record, "compiled", compiled)
    monkeypatch.setattr(sys, "argv", ["record", "v5e", *option])
    record.main()
    assert asked == [("v5e", not option)]
    assert json.loads(file.read_text()) == {"v4": {"a": {}}, "v5e": {"c": {"temp_bytes": 7}}}


def test_kernels_of_no_target(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["record", "v6"])
    with pytest.raises(SystemExit, match="2"):
        record.main()
    assert "no target 'v6'; did you mean 'v6e'" in capsys.readouterr().err


def test_a_compiler_that_must_be_here(monkeypatch):
    """`make test-aot` has installed it: to skip would be to pass without having looked."""
    monkeypatch.setattr(Target, "missing", lambda self: "v5e needs libtpu")
    monkeypatch.delenv(REQUIRED, raising=False)
    assert [mark.name for mark in marks("v5e")] == ["skip"]
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(RuntimeError, match="v5e needs libtpu"):
        marks("v5e")
    monkeypatch.setattr(Target, "missing", lambda self: None)
    assert marks("v5e") == []
