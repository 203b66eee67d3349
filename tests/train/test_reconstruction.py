"""Autoencoding: its loss, its noise, its baseline against the closed form, samples, bad input."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.train import tiny
from train import baselines, loop
from train.cli import main
from train.errors import UserError
from train.losses import square_errors
from train.tasks.reconstruction import ReconstructionConfig

NAME = "digits-autoencoder"


def build(*more: str, shift: int = 0) -> tuple[Any, Any]:
    return loop.build(tiny.recipe(NAME, f"--task.augment.shift {shift}", *more))


def digits(task, num: int) -> dict[str, jax.Array]:
    return jax.tree.map(jnp.asarray, task.data.train.gather(np.arange(num) * 3))


def test_the_loss_is_the_mean_over_pixels():
    task, objects = build()
    batch = task.prepare(objects, digits(task, 6))
    assert (batch["inputs"].min(), batch["inputs"].max()) == (0, 1)
    loss, _ = task.loss(objects["model"], batch, jax.random.key(0))
    told = np.asarray(objects["model"](batch["inputs"]), np.float64)
    assert_close(loss, np.mean((told - np.asarray(batch["inputs"])) ** 2), kind="composite")
    assert_close(
        square_errors(batch["inputs"], 0 * batch["inputs"]).mean(),
        jnp.square(batch["inputs"]).mean(),
    )


def test_noise_is_added_to_what_is_fed_and_not_to_what_is_wanted():
    """Of a network that tells what it is fed, the loss is the variance of the noise."""
    task, objects = build("--task.noise 0.3")
    batch = task.prepare(objects, digits(task, 64))

    class Same(nnx.Module):
        def __call__(self, fed):
            return fed

    loss, _ = task.loss(Same(), batch, jax.random.key(0))
    assert float(loss) == pytest.approx(0.09, rel=0.02)
    other, _ = task.loss(Same(), batch, jax.random.key(1))
    assert float(loss) != float(other)


def test_images_are_moved_as_the_config_says():
    task, objects = build(shift=3)
    batch = digits(task, 8)
    moved = task.prepare(objects, batch)["inputs"]
    plain = batch["inputs"] / 255
    assert_close(moved.sum((1, 2, 3)), plain.sum((1, 2, 3)))
    assert not np.array_equal(moved, plain)


def test_the_baseline_is_what_the_singular_values_leave():
    """Of the train rows themselves; each direction less leaves its share of the variance."""
    rows = np.random.default_rng(0).normal(size=(50, 7)) * np.arange(1, 8) + 3
    singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    for num in (2, 5):
        found = baselines.principal_components(rows, rows, num)
        assert found.name == f"PCA of {num}"
        assert found.value == pytest.approx(np.sum(singular[num:] ** 2) / rows.size)


def test_learning_beats_what_it_starts_with(tmp_path):
    recipe = tiny.recipe(NAME, "--steps 60 --optim.peak-lr 3e-3")
    result = loop.run(recipe, workdir=tmp_path / "run")
    log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in log]
    seen = [line["eval/mse"] for line in lines if "eval/mse" in line]
    assert result["metrics"]["eval/mse"] < 0.8 * seen[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": -0.1}, "noise=-0.1 must be finite and not negative"),
        ({"noise": float("nan")}, "noise=nan"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ReconstructionConfig(), **changes)


def test_what_does_not_fit_the_data(tmp_path):
    with pytest.raises(UserError, match="shift=40 must be smaller"):
        build(shift=40)
    folder = tiny.images(tmp_path, side=6)
    more = f"--data.data-dir {folder} --data.train-split train --data.eval-split test"
    with pytest.raises(UserError, match="a side of 6 pixels cannot be halved 2 times"):
        build(more)


def test_samples_are_pairs(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["run", NAME, "--workdir", str(folder), *tiny.fields(NAME)]) == 0
    page = (folder / "report.html").read_text()
    assert "Told by their codes" in page and "Told worst" in page
    capsys.readouterr()
    out = tmp_path / "pairs.png"
    assert main(["sample", str(folder), "--num", "5", "--out", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert len(rows) == 5 and all(row["mse"] > 0 for row in rows)
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert main(["sample", str(folder), "--prompt", "x"]) == 2
