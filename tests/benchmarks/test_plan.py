"""What `python -m benchmarks plan` writes; the compilers' part is made up, so it runs anywhere."""

import json

import pytest

from benchmarks import plan
from benchmarks.__main__ import main
from benchmarks.process import WorkerError
from train.plan import command
from train.targets import Target


@pytest.fixture
def written(monkeypatch, tmp_path):
    """A function that compiles some plans into a file, and gives what it then holds."""
    asked = []

    def compiled(options, chosen, *, fixed_batch, say):
        asked.append((options.recipe.name, str(chosen), fixed_batch, options.smallest))
        return {"name": options.recipe.name, "fits": fits}

    fits = True
    monkeypatch.setattr(command, "compiled", compiled)
    monkeypatch.setattr(Target, "missing", lambda self: None)

    def run(*names: str, fitting: bool = True):
        nonlocal fits
        fits = fitting
        path = plan.write(names, lambda text: None, tmp_path / "plan.json")
        return json.loads(path.read_text()), asked

    return run


def test_one_plan_after_another(written):
    """In the table's order, and what was there stays."""
    assert list(written("gpt3-175b-smallest")[0]) == ["gpt3-175b-smallest"]
    plans, asked = written("gpt2-xl")
    assert list(plans) == ["gpt2-xl", "gpt3-175b-smallest"]
    assert plans["gpt2-xl"] == {
        "command": "python -m train plan gpt2-xl --target h100x8",
        "name": "gpt2-xl",
        "fits": True,
    }
    assert asked == [("gpt3-175b", "v5p:8x8x8", False, True), ("gpt2-xl", "h100x8", False, False)]


def test_what_does_not_fit_is_no_plan(written, tmp_path):
    with pytest.raises(WorkerError, match="plan gpt2-xl --target h100x8: it does not fit"):
        written("gpt2-xl", fitting=False)
    assert not list(tmp_path.iterdir())


def test_mistakes(monkeypatch, capsys):
    assert main(["plan", "gpt2"]) == 2
    assert capsys.readouterr().err == "error: no plan 'gpt2'; did you mean 'gpt2-xl'?\n"
    monkeypatch.setattr(Target, "missing", lambda self: "h100 needs a thing; pip install it")
    assert main(["plan", "gpt2-xl"]) == 2
    assert capsys.readouterr().err == "error: h100 needs a thing; pip install it\n"
