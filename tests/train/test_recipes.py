"""The table of recipes, each recipe resumed for real, and the short ones trained whole."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.conftest import OPTIMISED
from train import loop
from train.checkpoint import Checkpoints
from train.data import sequences, to_device, train_batches
from train.data.embedded import NAMES
from train.recipes import RECIPES, Relative
from train.result import params_sha256
from train.step import Program


@pytest.mark.parametrize("name", RECIPES)
def test_row_tells_the_truth_about_its_recipe(name):
    row, recipe = RECIPES[name], RECIPES[name].load()
    assert recipe.name == name
    assert row.dataset == recipe.data.name
    assert {*row.dataset.split("+")} <= {*NAMES}
    preset = zoo.config(row.model)
    assert type(preset) is type(recipe.model)
    task = type(recipe.task).__name__.removesuffix("Config")
    assert row.task == re.sub(r"(?<=[a-z])(?=[A-Z])", "-", task).lower()
    assert row.direction in ("max", "min")
    assert row.seconds > 0
    assert row.about == row.about.strip(" .")
    if name == "digits-resnet":
        assert recipe.model == preset  # ResNet-18 as it is called


def test_thresholds_are_those_of_the_design():
    assert {name: row.threshold for name, row in RECIPES.items()} == {
        "linear-diabetes": Relative(times=1.005),
        "logistic-cancer": Relative(plus=-0.01),
        "digits-mlp": 0.93,
        "digits-convnet": 0.98,
        "digits-resnet": 0.985,
        "digits-gan": 22.8,
        "digits-cgan": Relative(),
        "digits-wgan-gp": Relative(),
        "digits-autoencoder": Relative(times=0.8),
        "digits-vae": Relative(),
        "digits-diffusion": Relative(),
        "vowels-lstm": 0.95,
        "sentiment-lstm": Relative(plus=-0.03),
        "bible-bert": Relative(plus=-2.0),
        "intents-srl": 0.9,
        "bible-gpt": 1.67,
        "bible-llama": 1.67,
        "bible-lstm-lm": Relative(),
        "cloze-qa": Relative(),
        "word2vec": Relative(plus=-0.02),
        "translate-en-es": 5.0,
        "translate-lstm": Relative(),
        "synopsis": Relative(),
    }


def test_threshold_relative_to_the_baseline():
    row = RECIPES["linear-diabetes"]
    assert row.threshold_value(50.0) == pytest.approx(50.25)
    assert row.threshold_value(None) is None
    assert row.passed({"rmse": 50.2}, 50.0) is True
    assert row.passed({"rmse": 50.3}, 50.0) is False
    assert row.passed({"rmse": 50.2}, None) is None
    assert str(Relative(times=1.005)) == "1.005 x baseline"
    assert str(Relative(plus=-0.01)) == "baseline - 0.01"
    assert str(Relative(plus=0.04)) == "baseline + 0.04"


def test_a_fixed_threshold_must_also_beat_the_baseline():
    row = RECIPES["digits-mlp"]
    assert row.passed({"accuracy": 0.94}, 0.90) is True
    assert row.passed({"accuracy": 0.94}, 0.95) is False
    assert row.passed({"accuracy": 0.92}, 0.90) is False
    assert row.passed({"accuracy": 0.94}, None) is True
    down = dataclasses.replace(row, direction="min", threshold=1.0)
    assert down.passed({"accuracy": 0.9}, 1.1) is True
    assert down.passed({"accuracy": 0.9}, 0.8) is False
    assert down.passed({"accuracy": 1.05}, 1.1) is False


def test_other_metrics_may_be_needed_too():
    row = dataclasses.replace(RECIPES["digits-mlp"], least={"recall": 0.5})
    assert row.passed({"accuracy": 0.94, "recall": 0.5}, None) is True
    assert row.passed({"accuracy": 0.94, "recall": 0.49}, None) is False


# --- Every recipe, two steps at a time ----------------------------------------------------------


def steps(program: Program, batches, count: int) -> list[float]:
    return [float(program.train(next(batches))["train/loss"]) for _ in range(count)]


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_and_two_more_are_four(name, tmp_path, monkeypatch):
    """With the recipe's own model, optimiser and augmentation; only the batches are smaller."""
    monkeypatch.setattr(sequences, "MAX_BUCKETS", 1)  # a step is compiled for each
    recipe = RECIPES[name].load()
    size = 2 * recipe.task.discriminator_steps if name == "digits-wgan-gp" else 8
    recipe = dataclasses.replace(recipe, batch_size=size)
    task, objects = loop.build(recipe)
    program = Program(objects)
    position = train_batches(task.data.train, batch_size=size, seed=recipe.seed)
    batches = to_device(position)
    ahead = train_batches(task.data.train, batch_size=size, seed=recipe.seed)
    program.compile_train(task.train_step, next(ahead))
    checkpoints = Checkpoints(tmp_path / "c", recipe.checkpoint, "loss", "min")

    losses = steps(program, batches, 2)
    progress = {"data": batches.get_state()}
    checkpoints.save(2, program.paths, program.leaves, progress)
    losses += steps(program, batches, 2)
    expected = params_sha256(program.objects())
    assert all(np.isfinite(losses))

    found = checkpoints.restore(program.paths, program.leaves, pytest.fail)
    checkpoints.close()
    assert found is not None
    program.leaves = found.leaves
    batches.set_state(found.progress["data"])
    assert steps(program, batches, 2) == losses[2:]
    assert params_sha256(program.objects()) == expected
    # Other seeds give other numbers, so that equality above means something.
    other = task.build(nnx.Rngs(1))
    if jax.tree.leaves(nnx.state(other["rngs"])):
        assert program.paths == Program(other).paths


# --- Whole ----------------------------------------------------------------------------------------


@pytest.fixture
def passing(run_cli, tmp_path):
    """A function that runs a recipe as its users do, machine code optimised, and checks the end."""

    def run(name: str) -> dict:
        folder = tmp_path / "run"
        done = run_cli("run", name, "--workdir", folder, "--json", timeout=500, **OPTIMISED)
        assert done.code == 0, done.stderr
        result = json.loads(done.stdout)
        check_passed(name, folder, result)
        return result

    return run


def check_passed(name: str, folder: Path, result: dict) -> None:
    row = RECIPES[name]
    value = result["metrics"][f"eval/{row.metric}"]
    assert result["passed"] is True, f"{name}: {row.metric} {value}, {result['threshold']}"
    sign = 1 if row.direction == "max" else -1
    assert sign * value >= sign * result["threshold"]
    assert result["steps"] == row.load().steps
    assert json.loads((folder / "result.json").read_text()) == result
    assert result["baseline"]["value"] > 0
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear-diabetes", "logistic-cancer", "digits-mlp"])
def test_short_recipe_passes(name, passing):
    passing(name)


@pytest.mark.slow
def test_the_convnet_passes(passing):
    assert passing("digits-convnet")["parameters"] == 421_642
