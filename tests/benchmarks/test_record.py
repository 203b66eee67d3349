"""Recorded results: one run of a recipe, or one for each of several seeds."""

import json
import statistics

import pytest

from benchmarks import record
from benchmarks.__main__ import main
from tests.train import tiny
from train.shutdown import Stopped


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """A function that records a small linear-diabetes, and reads what it wrote."""

    class Small:
        load = staticmethod(lambda: tiny.recipe("linear-diabetes"))

    monkeypatch.setattr(record, "clean_commit", lambda: "a commit")
    monkeypatch.setattr(record, "RECIPES", {"linear-diabetes": Small})

    def run(*seeds):
        (path,) = record.record(["linear-diabetes"], seeds, tmp_path / "results")
        assert path == tmp_path / "results" / "linear-diabetes.json"
        return json.loads(path.read_text())

    return run


def test_one_run(recorded):
    result = recorded()
    assert (result["commit"], result["seed"]) == ("a commit", 0)
    assert not {"seeds", "mean"} & set(result)


def test_several_seeds_and_their_mean(recorded):
    result = recorded(1, 2)
    alone = {str(seed): recorded(seed) for seed in (1, 2)}
    values = {seed: run["metrics"]["eval/rmse"] for seed, run in alone.items()}
    assert result["seeds"] == values
    assert values["1"] != values["2"]
    assert result["mean"] == statistics.fmean(values.values())
    assert result["params_sha256"] == alone["1"]["params_sha256"]  # the first seed's, whole


def test_a_run_that_was_stopped_is_not_recorded(recorded, monkeypatch, capsys, tmp_path):
    def stopped(*_, **__):
        raise Stopped("stopped at step 3 of 8 and saved", 0)

    monkeypatch.setattr(record, "run", stopped)
    assert main(["record", "linear-diabetes"]) == 1
    assert capsys.readouterr().err == (
        "error: stopped: a result is of a whole run, so nothing was recorded\n"
    )
    with pytest.raises(Stopped):
        recorded()
    assert not list((tmp_path / "results").iterdir())


def test_an_unknown_recipe_is_one_line(capsys):
    assert main(["record", "bible-gtp"]) == 2
    assert "did you mean 'bible-gpt'" in capsys.readouterr().err
