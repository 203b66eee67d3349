"""Masked language modelling as a task: its loss, its baseline, and what `sample` shows."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
from tests.train import tiny
from train.cli import main
from train.tasks import make_task


@pytest.fixture(scope="module")
def built():
    task = make_task(tiny.recipe("bible-bert"), kernels.best())
    return task, task.build(nnx.Rngs(0))


def test_the_loss_is_that_of_the_hidden_words(built):
    torch = pytest.importorskip("torch")
    task, objects = built
    batch = task.prepare(
        objects, {"inputs": jnp.asarray(task.data.train.gather(np.arange(6))["inputs"])}
    )
    assert batch["tokens"].shape == (6, 16)
    assert (np.asarray(batch["tokens"][:, 0]) == task.data.tokenizer.token_to_id("[CLS]")).all()
    model = task.trained(objects)
    loss, metrics = task.loss(model, batch, jax.random.key(0))
    # all places by the encoder and the head themselves, the hidden ones picked afterwards
    x = model["encoder"](batch["tokens"])
    logits = torch.tensor(np.array(model["head"](x, model["encoder"].tokens.table[...])))
    rows = np.arange(6)[:, None]
    wanted = torch.tensor(np.array(batch["targets"], np.int64))
    expected = torch.nn.functional.cross_entropy(
        logits[rows, np.array(batch["positions"])].flatten(0, 1), wanted.flatten()
    )
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(metrics["train/perplexity"], np.exp(expected.item()), rtol=1e-5)


def test_an_evaluation_asks_the_same_in_any_batch(built):
    task, objects = built
    inputs = task.data.eval.gather(np.arange(4))["inputs"]
    whole = task.eval_step(objects, {"inputs": jnp.asarray(inputs)})["loss"]
    turned = task.eval_step(objects, {"inputs": jnp.asarray(inputs[::-1].copy())})["loss"]
    np.testing.assert_allclose(turned[::-1], whole, rtol=1e-5)


def test_the_first_guess_is_the_frequency_of_each_word(built):
    task, objects = built
    flat = jnp.zeros((1, task.recipe.model.dim))  # a place that says nothing about its word
    table = objects["model"]["encoder"].tokens.table[...]
    guess = jax.nn.softmax(objects["model"]["head"](flat, jnp.zeros_like(table)))[0]
    counts = np.ones(task.data.tokenizer.get_vocab_size())
    for token in task.data.train.tokens:
        counts[token] += 1
    np.testing.assert_allclose(guess, counts / counts.sum(), rtol=1e-5)


def test_the_unigram_baseline(built):
    from train.text_baselines import unigram

    task, _ = built
    counts = np.ones(task.data.tokenizer.get_vocab_size())
    for token in task.data.train.tokens:
        counts[token] += 1
    loss = np.mean([-np.log(counts[token] / counts.sum()) for token in task.data.eval.tokens])
    assert unigram(task.data).value == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("window", [16, 24])
def test_all_that_is_asked_is_hidden(window):
    task: Any = make_task(tiny.recipe("bible-bert", f"--task.window {window}"), kernels.best())
    inputs = jnp.asarray(task.data.train.gather(np.arange(300))["inputs"])
    masked = task.prepare({"rngs": nnx.Rngs(augment=0)}, {"inputs": inputs})
    # 15 % of all places but that of [CLS]: of 24, 3.45 and not 3.6.
    assert masked["positions"].shape == (300, {16: 2, 24: 3}[window])
    assert masked["chosen"].all() and (masked["positions"] > 0).all()
    seen = jnp.take_along_axis(masked["tokens"], masked["positions"], axis=1)
    kept = (seen == masked["targets"]).mean(0)  # a tenth, in every column of targets
    np.testing.assert_allclose(kept, 0.1, atol=0.06)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "run"
    words = tiny.fields("bible-bert")
    assert main(["run", "bible-bert", "--workdir", str(path), *words]) == 0
    return str(path)


def test_the_report_draws_attention(folder):
    report = (Path(folder) / "report.html").read_text()
    assert "Attention in layer 1" in report and "Attention in layer 2" in report


def test_words_are_printed(folder, capsys):
    capsys.readouterr()
    assert main(["sample", folder, "--num", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("text ") for line in lines)
    assert all("[MASK]" in line and "  hidden " in line and "  found [" in line for line in lines)
    assert main(["sample", folder, "--prompt", "in the [MASK]"]) == 0
    assert capsys.readouterr().out.startswith("text in the [MASK]  found [")


def test_a_run_finds_words(folder, capsys):
    capsys.readouterr()
    prompt = "in the [MASK] god made the [MASK]"
    assert main(["sample", folder, "--prompt", prompt, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert [row["text"] for row in rows] == [prompt] * 2
    assert all(len(set(row["found"])) == 5 for row in rows)
    assert main(["sample", folder, "--num", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert len(rows) == 3 and all("[MASK]" in row["text"] and row["hidden"] for row in rows)
    for words, says in (
        (["--prompt", "no word is hidden"], "hides no word; write [MASK]"),
        (["--prompt", ""], "hides no word; write [MASK]"),
        (["--prompt", "caf\udce9 [MASK]"], "--prompt is not UTF-8"),
        (["--prompt", "[MASK] " * 40], "the model was trained with 16 at most"),
        (["--out", "x.png"], "words are printed"),
    ):
        assert main(["sample", folder, *words]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--data.tokenizer character", "has no [MASK] to hide a word behind"),
        ("--task.window 200", "is more than model.context=32"),
        ("--task.mask-rate 0", "must lie in (0, 1)"),
    ],
)
def test_wrong_fields_are_one_line(tmp_path, capsys, words, says):
    fields = tiny.fields("bible-bert", words)
    assert main(["run", "bible-bert", "--workdir", str(tmp_path / "run"), *fields]) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
