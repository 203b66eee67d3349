"""The command line: what each verb prints, what it returns, and one line for every mistake."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import kernels
from tests.train import tiny
from train import result
from train.cli import VERBS, run_options
from train.data.prepare import prepare
from train.options import parse
from train.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ["name", "model", "task", "dataset", "metric", "direction", "threshold", "seconds"]


# --- What each verb says ----------------------------------------------------------------------


def test_list_json_is_the_contract(call):
    code, out, err = call("list", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["name"] for row in rows] == list(RECIPES)
    for row in rows:
        assert list(row) == CONTRACT
        assert row["direction"] in ("max", "min")
        assert isinstance(row["seconds"], int)
    mlp = rows[list(RECIPES).index("digits-mlp")]
    assert (mlp["metric"], mlp["threshold"], mlp["dataset"]) == ("accuracy", 0.93, "mnist_5k")


def test_list_for_people(call):
    code, out, err = call("list")
    assert (code, err) == (0, "")
    for name, row in RECIPES.items():
        line = next(line for line in out.splitlines() if line.split()[0] == name)
        sign = ">=" if row.direction == "max" else "<="
        assert f"{row.metric} {sign} {row.threshold}" in line
        assert row.about in line


def test_list_starts_without_jax():
    code = "import sys, train.cli; train.cli.main(['list']); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_run_json_is_one_object_and_nothing_else(run_cli, tmp_path):
    done = run_cli("run", "logistic-cancer", "--json", *tiny.fields("logistic-cancer"))
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)  # fails on anything before or after the object
    folder = tmp_path / "runs/logistic-cancer"
    assert found == json.loads((folder / "result.json").read_text())
    contract = (
        "recipe model parameters steps seed metrics metric threshold passed baseline seconds "
        "steps_per_second params_sha256 versions device"
    )
    assert list(found)[: len(contract.split())] == contract.split()
    assert list(found["seconds"]) == ["setup", "compile", "train", "eval"]
    assert found["recipe"] == "logistic-cancer"
    assert found["steps"] == 8
    assert found["baseline"] is None
    assert found["metrics"].keys() >= {"eval/accuracy", "eval/loss", "eval/f1", "eval/auroc"}
    assert re.fullmatch("[0-9a-f]{64}", found["params_sha256"])
    assert found["parameters"] == 30 * 2 + 2
    names = {"config.json", "metrics.jsonl", "checkpoints", "report.html", "result.json"}
    assert {path.name for path in folder.iterdir()} == names | {"tensorboard"}
    assert "step 8/8" in done.stderr


def test_run_says_once_which_kernels_it_uses(run_cli, tmp_path):
    """On standard error, for people, and for programs in the result."""
    done = run_cli("run", "linear-diabetes", "--json", *tiny.fields("linear-diabetes"))
    assert done.code == 0, done.stderr
    line = "kernels: xla for dense, conv (the reference for windows over more than 4 channels), "
    assert done.stderr.count(line) == 1
    assert done.stderr.count("kernels: reference for batch_norm, layer_norm (ours is faster") == 1
    said = json.loads(done.stdout)["kernels"]
    assert said == kernels.describe(kernels.best("cpu"))
    assert said["attention"] == "xla (the reference up to 128 queries)"
    assert (said["dense"], said["layer_norm"]) == ("xla", "reference")


def test_run_ends_with_what_to_do_next(call, finished):
    code, out, _ = call("run", "digits-mlp", "--workdir", finished, *tiny.fields("digits-mlp"))
    assert code == 0
    lines = out.splitlines()
    assert re.match(r"digits-mlp: accuracy \d\.\d{4}  \((passed|MISSED)", lines[0])
    assert lines[1] == f"report: {finished}/report.html"
    assert lines[2] == "try next:"
    # Each of the three commands is one that works.
    for line in lines[3:]:
        words = shlex.split(line)
        assert words[1:3] == ["-m", "train"]
        if words[3] != "run":
            assert call(*words[3:])[0] == 0, line
    assert len(lines) == 6


def test_the_recorded_command_makes_the_same_run(tmp_path):
    more = (
        "--model.dropout-rate 0.5 --data.no-deduplicate --optim.clip-norm 1.5 --data.resize 14 "
        "--optim.ema-decay None --compute-dtype bfloat16 --task.augment.flip --data.weights 2.0"
    )
    recipe = tiny.recipe("digits-convnet", more)
    words = shlex.split(result.command(recipe))
    assert words[:5] == ["python", "-m", "train", "run", "digits-convnet"]
    kind, default = run_options("digits-convnet")
    assert parse(kind, "run", words[5:], default).recipe == recipe


def test_eval_gives_the_metrics_of_the_result(call, finished):
    expected = json.loads((finished / "result.json").read_text())
    before = tiny.tree(finished)
    code, out, err = call("eval", finished, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found == {"recipe": "digits-mlp", "step": 8, "metrics": expected["metrics"]}
    code, out, _ = call("eval", finished)
    assert code == 0
    assert out.splitlines()[0] == "digits-mlp at step 8"
    assert f"{expected['metrics']['eval/accuracy']:.4f}" in out
    assert tiny.tree(finished) == before


def test_eval_of_a_data_dir_run(call, tmp_path):
    """The folder of the data is in config.json as text and has to become a path again."""
    folder = tiny.images(tmp_path / "data")
    words = tiny.fields("digits-mlp", "--data.train-split train --data.eval-split test --steps 2")
    code, _, err = call(
        "run", "digits-mlp", *words, "--data-dir", folder, "--eval-batch-size", "20", "--workdir=r"
    )
    assert code == 0, err
    code, out, _ = call("eval", "r", "--json")
    assert code == 0
    assert json.loads(out)["step"] == 2


def test_sample_shows_rows_and_draws_them(call, finished, tmp_path):
    code, out, err = call("sample", finished, "--num", 5, "--out", "five.png", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["out"] == "five.png"
    assert len(found["samples"]) == 5
    assert found["samples"][0].keys() == {"example", "target", "predicted", "probability"}
    assert (tmp_path / "five.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = call("sample", finished, "--num", 3)
    assert code == 0
    assert len(out.splitlines()) == 3


def test_sample_of_numbers(call, finished_table):
    code, out, _ = call("sample", finished_table, "--num", 2, "--json")
    assert code == 0
    rows = json.loads(out)["samples"]
    assert [row.keys() for row in rows] == [{"example", "target", "predicted"}] * 2


def test_export_says_what_it_wrote(call, finished, tmp_path):
    code, out, err = call(
        "export", finished, "--format", "safetensors", "--out", "w.safetensors", "--json"
    )
    assert (code, err) == (0, "")
    size = (tmp_path / "w.safetensors").stat().st_size
    assert json.loads(out) == {"out": "w.safetensors", "format": "safetensors", "bytes": size}


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(call, verb):
    code, out, err = call(verb, "--help")
    assert (code, err) == (0, "")
    assert f"python -m train {verb}" in out
    assert len(out.splitlines()) > 5


def test_help_of_a_recipe_names_its_fields(call):
    code, out, err = call("run", "digits-convnet", "--help")
    assert (code, err) == (0, "")
    for flag in ("--workdir", "--resume", "--steps", "--seed", "--optim.peak-lr", "--data.name"):
        assert flag in out
    for flag in (
        "--model.conv-dims",
        "--task.augment.shift",
        "--checkpoint.keep",
        "--compute-dtype",
    ):
        assert flag in out
    assert RECIPES["digits-convnet"].about in out


def test_help_of_the_whole(call):
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert all(f"  {verb} " in out for verb in VERBS)
    code, out, err = call("run", "--help")
    assert code == 0
    assert all(name in out for name in RECIPES)
    for words in ((), ("run",)):  # without anything, the same on standard error
        code, out, err = call(*words)
        assert (code, out) == (2, "")
        assert "usage: python -m train" in err


# --- Endings that are no mistake ------------------------------------------------------------------


def test_a_full_disk_ends_in_one_line(run_cli, tmp_path):
    """RLIMIT_FSIZE lets small files through and stops the arrays of a checkpoint."""
    prepare("mnist_5k")  # before there is a limit
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, -1))"
    (tmp_path / "sitecustomize.py").write_text(limit)  # Python runs it when it starts
    done = run_cli(
        *("run", "digits-mlp", "--workdir", "run"),
        *tiny.fields("digits-mlp", "--model.hidden-dims 500"),
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
        JAX_ENABLE_COMPILATION_CACHE="false",
    )
    assert done.code > 0
    assert "Traceback" not in done.stderr
    assert re.search(r"^error: the disk of .*/checkpoints is full: ", done.stderr, re.M)
