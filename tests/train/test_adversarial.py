"""Adversarial learning: who moves when and by which loss, penalties, scores, samples, bad input."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.train import tiny
from train import loop, losses
from train.cli import main
from train.data import AugmentConfig, train_batches
from train.errors import UserError
from train.evaluation import compile_eval, evaluate
from train.gradient import Batch
from train.step import Program
from train.sync import Sync
from train.tasks.adversarial import AdversarialConfig, slopes
from train.tasks.generation import slerp

PENALISED = "--model.norm none --task.loss wasserstein --task.gradient-penalty 10"
UNMOVED = "--task.augment.shift 0"
CONDITIONAL = "--model.num-classes 10"


def build(*more: str) -> tuple[Any, Any]:
    return loop.build(tiny.recipe("digits-gan", *more))


def batch_of(task, num: int) -> Batch:
    return jax.tree.map(jnp.asarray, task.data.train.gather(np.arange(num) * 7))


def trained(task, objects, steps: int):
    """The objects after some steps, and the metrics of the last."""
    program = Program(objects)
    batches = train_batches(task.data.train, batch_size=task.recipe.batch_size, seed=0)
    program.compile_train(task.train_step, *batches.examples())
    metrics = {}
    for _ in range(steps):
        metrics = program.train(next(batches))
    return program.objects(), jax.tree.map(float, metrics)


def params(module) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))]


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(params(a), params(b), strict=True))


def test_each_player_moves_in_its_own_turn():
    task, objects = build()
    before = nnx.clone(objects)
    batch = batch_of(task, 16)
    task.move_discriminator(objects, batch, Sync())
    assert same(objects["generator"], before["generator"])
    assert not same(objects["discriminator"], before["discriminator"])
    middle = nnx.clone(objects)
    task.move_generator(objects, batch, Sync())
    assert not same(objects["generator"], middle["generator"])
    assert same(objects["discriminator"], middle["discriminator"])


def test_the_discriminator_takes_its_steps():
    task, objects = build("--task.discriminator-steps 4")
    moved, metrics = trained(task, objects, 3)
    assert int(moved["generator_optimizer"].step[...]) == 3
    assert int(moved["discriminator_optimizer"].step[...]) == 12
    assert metrics["train/learning_rate"] == pytest.approx(2e-4)
    assert {"train/loss", "train/generator_loss", "train/real_logit"} <= set(metrics)


def test_its_learning_rate_is_a_multiple():
    _, objects = build("--task.discriminator-lr 2.5")
    rates = [
        float(objects[f"{p}_optimizer"].learning_rate()) for p in ("generator", "discriminator")
    ]
    assert rates[1] == pytest.approx(2.5 * rates[0])


@pytest.mark.parametrize(
    ("name", "player"),
    [
        ("non-saturating", losses.generator_loss),
        ("minimax", losses.minimax_generator_loss),
        ("wasserstein", losses.critic_generator_loss),
    ],
)
def test_the_loss_is_the_one_that_was_asked_for(name, player, monkeypatch):
    """By the logits of what the generator makes of the very same noise."""
    task, objects = build(f"{UNMOVED} --task.loss {name}")
    noise = jax.random.normal(jax.random.key(5), (16, 6))
    monkeypatch.setattr(task, "latents", lambda objects, num, sync: noise[:num])
    batch = batch_of(task, 16)
    fake = objects["generator"](noise)
    on_fake = nnx.clone(objects["discriminator"])(fake)
    on_real = nnx.clone(objects["discriminator"])(task.from_pixels(batch["inputs"]))
    pair = losses.critic_loss if name == "wasserstein" else losses.discriminator_loss
    metrics = task.move_discriminator(nnx.clone(objects), batch, Sync())
    assert_close(metrics["train/loss"], pair(on_real, on_fake), kind="composite")
    assert_close(metrics["train/fake_logit"], on_fake.mean(), kind="composite")
    moved = task.move_generator(objects, batch, Sync())
    assert_close(moved["train/generator_loss"], player(on_fake), kind="composite")


def test_slopes_are_finite_differences():
    """Of a critic in float64, along random directions, image by image."""
    with jax.enable_x64(True):
        _, objects = build(PENALISED)
        critic = objects["discriminator"]
        graphdef, state = nnx.split(critic)
        critic = nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(jnp.float64), state))
        rng = np.random.default_rng(0)
        images, way = (jnp.asarray(rng.standard_normal((3, 28, 28, 1))) for _ in range(2))
        found = jnp.sum(slopes(critic, images, None) * way, axis=(1, 2, 3))
        step = 1e-6
        expected = (critic(images + step * way) - critic(images - step * way)) / (2 * step)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_gradient_penalty_is_differentiated_through():
    """Its gradient in the critic's parameters is that of finite differences, in float64."""
    with jax.enable_x64(True):
        _, objects = build(PENALISED)
        graphdef, state = nnx.split(objects["discriminator"])
        state = jax.tree.map(lambda x: x.astype(jnp.float64), state)
        rng = np.random.default_rng(1)
        images = jnp.asarray(rng.standard_normal((2, 28, 28, 1)))
        way = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), state)

        def norms(t):
            moved = jax.tree.map(lambda x, d: x + t * d, state, way)
            gradients = slopes(nnx.merge(graphdef, moved), images, None)
            return jnp.mean((jnp.sqrt(jnp.sum(gradients**2, (1, 2, 3))) - 1) ** 2)

        step = 1e-6
        expected = (norms(step) - norms(-step)) / (2 * step)
        np.testing.assert_allclose(jax.grad(norms)(0.0), expected, rtol=1e-5)


@pytest.mark.parametrize("penalty", ["gradient", "r1"])
def test_penalties_are_added_to_the_loss(penalty):
    """By exactly λ times what the functions of `train.losses` give."""
    plain, objects = build(f"{UNMOVED} --model.norm layer --task.loss wasserstein")
    task, _ = build(
        f"{UNMOVED} --model.norm layer --task.loss wasserstein --task.{penalty}-penalty 3.0"
    )
    real, fake = (
        jax.random.uniform(jax.random.key(i), (8, 28, 28, 1), minval=-1) for i in range(2)
    )
    critic, key = objects["discriminator"], jax.random.key(2)
    batch = {"real": real, "fake": fake}
    without = plain.discriminator_loss(critic, batch, key)[0]
    with_it = task.discriminator_loss(critic, batch, key)[0]
    at, measure = real, losses.r1_penalty
    if penalty == "gradient":
        way = jax.random.uniform(jax.random.split(key, 3)[2], (8, 1, 1, 1))
        at, measure = way * real + (1 - way) * fake, losses.gradient_penalty
    assert_close(with_it - without, 3 * measure(slopes(critic, at, None)), kind="composite")


def test_augmentation_is_of_real_and_generated_images_alike():
    task, _ = build("--task.augment.shift 3")
    black = jnp.full((8, 28, 28, 1), -1.0)
    images = black.at[:, 10, 10].set(1.0)
    seen = task.augmented(jax.random.key(0), images)
    assert_close(seen.sum((1, 2, 3)), images.sum((1, 2, 3)))  # moved, and black where it was
    assert not np.array_equal(seen, images)
    plain, _ = build("--task.augment.shift 0")
    assert plain.augmented(jax.random.key(0), images) is images
    gradient = jax.grad(lambda x: (task.augmented(jax.random.key(0), x) ** 2).sum())(images)
    assert float(jnp.abs(gradient).sum()) > 0


def test_a_generator_by_its_average():
    """Evaluations see the averaged weights of the generator, and not its last ones."""
    task, objects = build("--optim.ema-decay 0.5")
    moved, _ = trained(task, objects, 4)
    averaged = task.evaluated(moved)["generator"]
    assert not same(averaged, moved["generator"])
    latents = jnp.ones((2, 6))
    expected = nnx.view(averaged, deterministic=True)(latents)
    assert_close(task.generate(task.evaluated(moved), latents, None), expected)
    images = np.asarray(task.predict(moved, {"latents": latents})["images"])
    assert np.array_equal(images, np.rint((np.asarray(expected) + 1) * 127.5).astype(np.uint8))


def test_the_gallery_keeps_moments():
    """After each eighth of 8 steps and no other: rows stay as they were when they were hung."""
    task, objects = build()
    assert objects["gallery"].moments == (1, 1, 1, 1, 1, 2, 4, 8)
    early, _ = trained(task, objects, 3)
    late, _ = trained(task, objects, 4)
    hung = [np.asarray(o["gallery"].images[...]) for o in (early, late)]
    assert hung[0][:6].any() and not hung[0][6:].any()
    assert np.array_equal(hung[0][:6], hung[1][:6]) and hung[1][6].any()
    assert np.array_equal(hung[1][6], np.asarray(task.fixed_images(late)))


# --- Measured -------------------------------------------------------------------------------------


def test_scores_of_a_generator_that_repeats_the_test_digits():
    """All classes alike, everything precise and recalled, and no distance."""
    task, _ = build()
    images = task.data.eval.arrays()["inputs"]
    real = task.judge.features(images)
    classes = np.arange(len(images)) % 10
    outputs = {
        "real_features": real,
        "features": np.stack([real, real], 1),
        "class": np.stack([classes, classes], 1),
        "target": classes,
    }
    scores = task.summarise(outputs)
    assert scores["digit_fid"] == pytest.approx(0, abs=0.05)  # 2 n rows have another n - 1
    assert scores["smallest_class_share"] == pytest.approx(0.1)
    assert scores["precision"] == scores["recall"] == 1
    assert 0 < scores["digit_fid_floor"] < task.digit_fid(255 - images)
    assert "label_accuracy" not in scores
    outputs["class"] = np.zeros_like(outputs["class"])
    assert task.summarise(outputs)["smallest_class_share"] == 0


def test_classes_that_were_asked_for():
    task, objects = build(CONDITIONAL)
    moved, _ = trained(task, objects, 1)
    program = Program(moved)
    compile_eval(program, task)
    outputs = evaluate(program, task)
    assert outputs["class"].shape == (50, 2)
    asked = outputs["target"][:, None]
    assert task.summarise(outputs)["label_accuracy"] == np.mean(outputs["class"] == asked)


def test_slerp():
    start, end = np.array([3.0, 0.0], np.float32), np.array([0.0, 3.0], np.float32)
    way = slerp(start, end, 5)
    assert_close(way[[0, -1]], np.stack([start, end]))
    assert_close(np.linalg.norm(way, axis=1), np.full(5, 3.0))
    assert_close(way[2], np.full(2, 3 / np.sqrt(2)))


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discriminator_steps": 0}, "discriminator_steps=0 must be at least 1"),
        ({"samples_per_image": 0}, "samples_per_image=0 must be at least 1"),
        ({"discriminator_lr": 0.0}, "discriminator_lr=0.0 must be positive"),
        ({"gradient_penalty": -1.0}, "gradient_penalty=-1.0 must be finite and not negative"),
        ({"r1_penalty": float("inf")}, "r1_penalty=inf must be finite"),
        ({"augment": AugmentConfig(mixup=0.2)}, "augment.mixup=0.2 mixes images"),
    ],
)
def test_a_game_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        AdversarialConfig(**changes)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--task.gradient-penalty 10", "batch norm mixes with the others"),
        ("--task.r1-penalty 1", "use --model.norm layer or none"),
        ("--task.discriminator-steps 3", "batch_size=16 cannot be cut in 3 pieces"),
        ("--task.augment.shift 40", "shift=40 must be smaller"),
    ],
)
def test_what_does_not_fit_together(more, message):
    with pytest.raises(UserError, match=message):
        build(more)


def test_only_digits_can_be_judged(tmp_path):
    folder = tiny.images(tmp_path)
    with pytest.raises(UserError, match=r"shape \(8, 8, 1\) in 3 classes; the judge"):
        build(f"--data.data-dir {folder} --data.train-split train --data.eval-split test")


# --- The command line -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two tiny runs: one without classes, one with."""
    folder = tmp_path_factory.mktemp("gan")
    for name, recipe in (("plain", "digits-gan"), ("classes", "digits-cgan")):
        run = ["run", recipe, "--workdir", str(folder / name)]
        assert main([*run, *tiny.fields(recipe)]) == 0
    return folder


def test_a_grid_is_drawn(runs, capsys):
    capsys.readouterr()
    out = runs / "grid.png"
    assert main(["sample", str(runs / "plain"), "--num", "6", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["sample"] for row in found["samples"]] == list(range(6))
    assert all(0 <= row["class"] <= 9 for row in found["samples"])
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_a_class_is_asked_for(runs, capsys):
    capsys.readouterr()
    sample = ["sample", str(runs / "classes")]
    assert main([*sample, "--num", "3", "--label", "7", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["asked"] for row in found["samples"]] == [7, 7, 7]
    assert main([*sample, "--label", "10"]) == 2
    assert "--label 10: classes are 0 to 9" in capsys.readouterr().err
    assert main([*sample, "--prompt", "x"]) == 2
    assert "is no language model" in capsys.readouterr().err
    assert main(["sample", str(runs / "plain"), "--label", "7"]) == 2
    assert "knows of no classes" in capsys.readouterr().err


def test_the_report_shows_what_it_learnt(runs):
    for name in ("plain", "classes"):
        page = (runs / name / "report.html").read_text()
        for title in ("Digits out of noise", "The same noise as it learns", "Walks between"):
            assert title in page
        assert "The most similar training digits" in page and "How often each class" in page


def test_an_export_takes_latents_and_classes(runs, tmp_path):
    from jax import export

    out = tmp_path / "m.stablehlo"
    assert main(["export", str(runs / "classes"), "--format", "stablehlo", "--out", str(out)]) == 0
    draw = export.deserialize(bytearray(out.read_bytes())).call
    asked = {"latents": np.zeros((3, 6), np.float32), "labels": np.array([1, 2, 3], np.int32)}
    images = np.asarray(draw(asked)["images"])
    assert images.shape == (3, 28, 28, 1) and images.dtype == np.uint8
