"""Variational autoencoding: the bound and its parts, the Gaussian baseline, samples, the report."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.close import assert_close
from tests.train import tiny
from train import baselines, loop, losses
from train.cli import main
from train.evaluation import compile_eval, evaluate
from train.step import Program
from train.tasks.variational import VariationalConfig

NAME = "digits-vae"
stats: Any = scipy.stats  # whose types are not told


def build(*more: str) -> tuple[Any, Any]:
    return loop.build(tiny.recipe(NAME, "--task.augment.shift 0", *more))


def batch_of(task, objects, num: int):
    rows = jax.tree.map(jnp.asarray, task.data.train.gather(np.arange(num) * 7))
    return task.prepare(objects, rows)


def test_the_likelihood_is_a_normal_density():
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(2, 3, 4, 2)).astype(np.float32)
    found = losses.gaussian_log_likelihood(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(-0.7))
    expected = stats.norm.logpdf(x, mean, np.exp(-0.7)).sum((1, 2))
    assert_close(found, expected)


def test_the_divergence_in_closed_form():
    """By scipy's integral over one number at a time."""
    mean, log_var = np.array([[0.3, -1.2]], np.float32), np.array([[-0.5, 0.8]], np.float32)
    expected = 0.0
    for m, v in zip(mean[0], log_var[0], strict=True):
        code = stats.norm(m, np.exp(v / 2))
        expected += code.expect(lambda z, code=code: code.logpdf(z) - stats.norm.logpdf(z))
    found = losses.kl_from_standard_normal(*map(jnp.asarray, (mean, log_var)))
    assert_close(found, [expected])
    zero = losses.kl_from_standard_normal(jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    assert_close(zero, jnp.zeros(2))


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_the_loss_is_the_negative_bound(beta):
    task, objects = build(f"--task.beta {beta}")
    batch, key, model = batch_of(task, objects, 6), jax.random.key(3), objects["model"]
    noise = jax.random.normal(key, (6, 5))
    told, mean, log_var = model(batch["images"], noise)
    likelihood = losses.gaussian_log_likelihood(batch["images"], told, model.log_sigma[...])
    divergence = losses.kl_from_standard_normal(mean, log_var)
    loss, metrics = task.loss(model, batch, key)
    assert_close(loss, (beta * divergence - likelihood).mean(), kind="composite")
    assert_close(metrics["train/divergence"], divergence.mean(), kind="composite")


def test_what_is_reported_is_the_bound_itself():
    """Whatever β, with one code an image and its own latents."""
    results = []
    for beta in (1.0, 4.0):
        task, objects = build(f"--task.beta {beta}")
        program = Program(objects)
        compile_eval(program, task)
        outputs = evaluate(program, task)
        results.append(task.summarise(outputs))
        assert results[-1]["elbo"] == pytest.approx(
            outputs["likelihood"].mean() - outputs["divergence"].mean()
        )
    assert results[0] == results[1]
    assert {"mse", "divergence", "digit_fid", "smallest_class_share"} <= set(results[0])


def test_the_baseline_is_the_likelihood_of_probabilistic_pca():
    """Against the density of its covariance (Tipping & Bishop 1999, eq. 4 to 8)."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 6)) * np.arange(1, 7)
    held_out = rng.normal(size=(20, 6))
    values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
    values[:4] = values[:4].mean()  # two free directions, and one variance for the rest
    covariance = vectors * values @ vectors.T
    expected = stats.multivariate_normal(rows.mean(0), covariance).logpdf(held_out).mean()
    found = baselines.probabilistic_pca(rows, held_out, 2)
    assert found.name == "PCA Gaussian of 2"
    assert found.value == pytest.approx(expected)


def test_the_bound_rises(tmp_path):
    recipe = tiny.recipe(NAME, "--steps 60 --optim.peak-lr 3e-3")
    result = loop.run(recipe, workdir=tmp_path / "run")
    log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in log]
    seen = [line["eval/elbo"] for line in lines if "eval/elbo" in line]
    assert result["metrics"]["eval/elbo"] > seen[0] + 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": -1.0}, "beta=-1.0 must be finite and not negative"),
        ({"samples_per_image": 0}, "samples_per_image=0 must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(VariationalConfig(), **changes)


def test_a_class_is_asked_for(tmp_path, capsys):
    folder = tmp_path / "run"
    fields = tiny.fields(NAME, "--model.num-classes 10")
    assert main(["run", NAME, "--workdir", str(folder), *fields]) == 0
    page = (folder / "report.html").read_text()
    assert "Digits told by their codes" in page and "Digits out of noise" in page
    result = json.loads((folder / "result.json").read_text())
    assert "eval/label_accuracy" in result["metrics"]
    capsys.readouterr()
    out = tmp_path / "grid.png"
    arguments = ["--num", "4", "--label", "7", "--out", str(out), "--json"]
    assert main(["sample", str(folder), *arguments]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert [row["asked"] for row in rows] == [7] * 4
    assert out.read_bytes()[:4] == b"\x89PNG"
