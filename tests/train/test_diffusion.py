"""Diffusion: what is learned of noise, how images are made of it, classes, samples, bad input."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from tests.train import tiny
from train import loop
from train.cli import main
from train.tasks.diffusion import DiffusionConfig
from zoo.functional import diffusion

NAME = "digits-diffusion"
SHAPE = (28, 28, 1)


def build(*more: str) -> tuple[Any, Any]:
    return loop.build(tiny.recipe(NAME, *more))


class Recorder:
    """A network that keeps what it is asked, and answers with a function of it."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self, x, t, labels=None, *, rngs=None):
        self.asked.append((x, t, labels))
        return self.answer(x, t)


def images(num: int):
    return jax.random.uniform(jax.random.key(9), (num, *SHAPE), minval=-1)


def test_a_flow_is_taught_the_way_from_noise_to_image():
    """x_t - (1-t) ε = t x₀ gives the noise back, and with it what is wanted."""
    task, _ = build()
    network = Recorder(lambda x, t: 0 * x)
    batch = {"images": images(64)}
    loss, _ = task.loss(network, batch, jax.random.key(1))
    ((noisy, t, labels),) = network.asked
    way = t[:, None, None, None]
    noise = (noisy - way * batch["images"]) / (1 - way)
    assert abs(float(noise.mean())) < 0.02 and float(noise.std()) == pytest.approx(1, abs=0.02)
    assert 0 <= t.min() < 0.1 and 0.9 < t.max() < 1 and labels is None
    assert_close(loss, jnp.mean((batch["images"] - noise) ** 2), kind="composite")


def test_ddpm_is_taught_the_noise():
    task, _ = build("--task.method ddpm --task.num-noise-levels 20 --task.sample-steps 20")
    network = Recorder(lambda x, t: 0 * x)
    batch = {"images": images(256)}
    loss, _ = task.loss(network, batch, jax.random.key(1))
    ((noisy, t, _),) = network.asked
    steps = np.rint(np.asarray(t) * 20).astype(int)
    assert {*steps} == {*range(1, 21)}
    bars = diffusion.cosine_schedule(20)[steps][:, None, None, None]
    noise = (np.asarray(noisy) - np.sqrt(bars) * np.asarray(batch["images"])) / np.sqrt(1 - bars)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert_close(loss, np.mean(noise**2), kind="composite")


def test_classes_are_forgotten_now_and_then():
    task, _ = build("--model.num-classes 10 --task.label-dropout 0.25")
    network = Recorder(lambda x, t: 0 * x)
    labels = jnp.arange(1000) % 10
    task.loss(network, {"images": jnp.zeros((1000, *SHAPE)), "labels": labels}, jax.random.key(0))
    ((_, _, told),) = network.asked
    forgotten = np.asarray(told == 10)
    assert np.array_equal(np.asarray(told)[~forgotten], np.asarray(labels)[~forgotten])
    assert 0.2 < forgotten.mean() < 0.3


@pytest.mark.parametrize(("more", "looks"), [("--task.solver euler", 3), ("--task.solver heun", 6)])
def test_a_flow_is_followed(more, looks, monkeypatch):
    """The velocity of a straight line ends in its image, by either solver."""
    task, objects = build(more, "--task.sample-steps 3")
    noise, end = (
        jnp.asarray(np.random.default_rng(0).normal(size=(4, *SHAPE)), jnp.float32),
        images(4),
    )
    network = Recorder(lambda x, t: end - noise)
    monkeypatch.setattr("train.tasks.diffusion.nnx.view", lambda model, **_: network)
    with jax.disable_jit():
        assert_close(task.generate(objects, noise, None), end, kind="composite")
    assert len(network.asked) == looks


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_ddpm_walks_back_to_the_image(steps, monkeypatch):
    """A network that knows the image and so the noise; the last step adds none."""
    task, objects = build(
        f"--task.method ddpm --task.num-noise-levels 20 --task.sample-steps {steps}"
    )
    end = images(3)
    bars = jnp.asarray(diffusion.cosine_schedule(20))

    def noise_in(x, t):
        bar = bars[jnp.rint(t * 20).astype(int)][:, None, None, None]
        return (x - jnp.sqrt(bar) * end) / jnp.sqrt(1 - bar)

    network = Recorder(noise_in)
    monkeypatch.setattr("train.tasks.diffusion.nnx.view", lambda model, **_: network)
    start = jax.random.normal(jax.random.key(2), (3, *SHAPE))
    assert_close(task.generate(objects, start, None), end, kind="composite")


def test_an_image_depends_on_its_own_noise_alone():
    task, objects = build("--task.method ddpm --task.sample-steps 4")
    start = jax.random.normal(jax.random.key(2), (4, *SHAPE))
    together = task.generate(objects, start, None)
    assert_close(task.generate(objects, start[2:3], None), together[2:3], kind="composite")
    assert not jnp.allclose(together[0], together[1])


def test_guidance_is_between_and_beyond_two_answers(monkeypatch):
    labels = jnp.array([1, 2])
    start = jax.random.normal(jax.random.key(2), (2, *SHAPE))

    def made(guidance: float):
        task, objects = build(
            f"--model.num-classes 10 --task.guidance {guidance} --task.sample-steps 1 "
            "--task.solver euler"
        )

        def network(x, t, labels=None, rngs=None):
            return jnp.full_like(x, 1.0 if labels is None else 3.0)

        monkeypatch.setattr("train.tasks.diffusion.nnx.view", lambda model, **_: network)
        return task.generate(objects, start, labels)

    assert_close(made(1.0), start + 3)
    assert_close(made(0.0), start + 1)
    assert_close(made(2.5), start + 1 + 2.5 * 2)


def test_the_chain_is_cut_into_even_steps():
    """With every level taken, each looks at its own; fewer begin at the noisiest all the same."""
    for steps, expected in ((4, [1.0, 0.75, 0.5, 0.25]), (2, [1.0, 0.5])):
        task, _ = build(f"--task.method ddpm --task.num-noise-levels 4 --task.sample-steps {steps}")
        seen = []
        with jax.disable_jit():
            task.walk_back(lambda x, t, seen=seen: seen.append(float(t[0])) or x, images(1))
        assert seen == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_steps": 0}, "sample_steps=0 must be at least 1"),
        ({"num_noise_levels": 0}, "num_noise_levels=0 must be at least 1"),
        ({"method": "ddpm", "sample_steps": 2000}, "sample_steps=2000 must be at most num_noise_"),
        ({"guidance": -1.0}, "guidance=-1.0 must be finite and not negative"),
        ({"label_dropout": 1.0}, "label_dropout=1.0 must lie in"),
        ({"samples_per_image": 0}, "samples_per_image=0 must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DiffusionConfig(), **changes)


def test_a_run_draws_and_shows(tmp_path, capsys):
    folder = tmp_path / "run"
    fields = tiny.fields(NAME, "--model.num-classes 10 --task.guidance 2")
    assert main(["run", NAME, "--workdir", str(folder), *fields]) == 0
    page = (folder / "report.html").read_text()
    for title in ("Digits out of noise", "The same noise as it learns", "Walks between"):
        assert title in page
    capsys.readouterr()
    assert main(["sample", str(folder), "--num", "3", "--label", "7", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert [row["asked"] for row in rows] == [7, 7, 7]
