"""Language models through the command line: a run, its tokenizer, its texts, wrong prompts."""

import json
import math
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.train import tiny
from train.cli import main
from train.errors import UserError
from train.step import Program
from train.task import SampleRequest
from train.tasks import make_task
from train.tasks.language_model import LanguageModelConfig

RECIPES = ("bible-gpt", "bible-llama", "bible-lstm-lm")


@pytest.fixture(scope="module", params=RECIPES)
def folder(request, tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / request.param
    words = tiny.fields(request.param, "--task.baseline 4-gram")
    assert main(["run", request.param, "--workdir", str(path), *words]) == 0
    return path


@pytest.fixture
def sample(capsys):
    """`sample` with some words: its exit code, its texts, and what it said."""

    def call(folder, *words):
        code = main(["sample", str(folder), "--json", *map(str, words)])
        out, err = capsys.readouterr()
        return code, json.loads(out)["samples"] if out else [], err

    return call


def test_the_result_is_in_nats_a_character(folder):
    result = json.loads((folder / "result.json").read_text())
    metrics = result["metrics"]
    assert metrics["eval/nats_per_char"] == pytest.approx(metrics["eval/loss"])  # one a token
    assert metrics["eval/perplexity"] == pytest.approx(math.exp(metrics["eval/loss"]))
    assert result["baseline"]["name"] == "interpolated 4-gram"
    assert 1 < result["baseline"]["value"] < math.log(100)


def test_texts_go_on_from_the_prompt(folder, sample):
    code, rows, _ = sample(folder, "--prompt", "In the", "--num", 2, "--length", 37)
    assert code == 0 and [len(row["text"]) for row in rows] == [37, 37]
    assert rows[0]["text"] != rows[1]["text"] and rows[0]["prompt"] == "In the"
    again = sample(folder, "--prompt", "In the", "--num", 2, "--length", 37)[1]
    other = sample(folder, "--prompt", "In the", "--num", 2, "--length", 37, "--seed", 1)[1]
    assert again == rows and other != rows


def test_a_text_is_printed_after_its_prompt(folder, capsys):
    capsys.readouterr()
    assert main(["sample", str(folder), "--prompt", "In the", "--length", "7"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("In the") and len(printed) == len("In the") + 7 + 1
    assert main(["sample", str(folder), "--num", "2", "--length", "30"]) == 0
    # Each with its line's end; the line break that both go on from is not printed.
    assert len(capsys.readouterr().out) == 2 * (30 + 1)


def test_of_the_likeliest_tokens_one_alone_is_left(folder, sample):
    asked = ("--prompt", "In the", "--length", 8)  # what is compiled once
    _, greedy, _ = sample(folder, *asked, "--temperature", 0)
    assert sample(folder, *asked, "--top-k", 1)[1] == greedy
    assert sample(folder, *asked, "--top-p", 1e-6)[1] == greedy
    assert sample(folder, *asked)[1] != greedy


@pytest.mark.parametrize("kind", ["byte", "bpe", "word", "wordpiece"])
def test_any_tokenizer(kind):
    words = f"--data.tokenizer {kind} --data.vocab-size 300"
    task: Any = make_task(tiny.recipe("bible-lstm-lm", words), zoo.Ops())
    objects = task.build(nnx.Rngs(0))
    start = int(task.data.eval.tokens[0])
    first = "\n" if kind in ("byte", "bpe") else task.data.tokenizer.id_to_token(start)
    (row,) = task.sample(objects, SampleRequest(length=3))
    assert row["prompt"] == first and row["text"]
    (section,) = task.sections(objects, {})  # of the report
    assert repr(first) in section.caption
    (row,) = task.sample(objects, SampleRequest(prompt="In the", length=3))
    assert row["prompt"] == "In the" and not row["text"].startswith("in the")
    assert kind != "word" or row["text"].startswith(" ")
    with pytest.raises(UserError, match="--prompt has no text"):
        task.sample(objects, SampleRequest(prompt="" if kind in ("byte", "bpe") else "\n"))
    if kind in ("byte", "bpe"):
        assert task.sample(objects, SampleRequest(prompt="龍", length=3))[0]["prompt"] == "龍"
    else:
        with pytest.raises(UserError, match="--prompt holds '龍', which the tokenizer did not"):
            task.sample(objects, SampleRequest(prompt="In the 龍 the"))


def test_a_long_prompt_is_cut_and_says_so(folder, sample):
    _, rows, _ = sample(folder, "--prompt", "In the beginning", "--length", 5)
    assert rows[0]["prompt_tokens_unseen"] == len("In the beginning") - 8
    end = sample(folder, "--prompt", "eginning", "--length", 5)[1]
    assert end[0]["text"] == rows[0]["text"]  # what was cut changed nothing


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--prompt", ""), "--prompt has no text"),
        (("--prompt", "caf\udce9"), "--prompt is not UTF-8"),
        (("--prompt", "龍"), "--prompt holds '龍', which the tokenizer did not learn"),
        (("--out", "text.png"), "a text is printed and not drawn"),
        (("--length", "0"), "length=0 must be at least 1"),
        (("--temperature", "-1"), "temperature=-1.0 must be 0 or more"),
    ],
)
def test_wrong_requests(folder, sample, words, says):
    code, _, err = sample(folder, *words)
    assert code == 2 and says in err and err.count("\n") == 1


def test_another_tokenizer_is_refused(folder, sample, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"e": ', '"é": '))
    code, _, err = sample(copy, "--length", "3")
    assert code == 2 and "tokenizer.json does not fit the checkpoints" in err
    tokenizer.unlink()
    assert sample(copy, "--length", "3")[0] == 2


def test_a_window_beyond_the_context(capsys, tmp_path):
    words = tiny.fields("bible-gpt", "--model.context 15")
    assert main(["run", "bible-gpt", "--workdir", str(tmp_path / "run"), *words]) == 2
    assert "task.window=16 is more than model.context=15" in capsys.readouterr().err


def test_the_report_draws_attention_and_a_text(folder):
    report = (folder / "report.html").read_text()
    assert "A text that it wrote" in report
    assert ("Attention in layer 2" in report) == (folder.name != "bible-lstm-lm")


# --- Experts --------------------------------------------------------------------------------------


def experts(weight: float):
    """The task of a mixture of four experts, its objects and a batch."""
    words = "--model.num-experts 4 --model.experts-per-token 1 --model.num-layers 1"
    task: Any = make_task(
        tiny.recipe("bible-llama", words, f"--task.balance-weight {weight}"), zoo.Ops()
    )
    return task, task.build(nnx.Rngs(0)), task.data.train.gather(np.arange(8))


def test_a_mixture_of_experts_adds_its_imbalance_to_the_loss():
    key = jax.random.key(0)
    for weight in (0.0, 0.01, 3.0):
        task, objects, batch = experts(weight)
        batch = jax.tree.map(jnp.asarray, batch)
        losses, imbalance = objects["model"].losses_and_imbalance(batch["inputs"], batch["targets"])
        loss, metrics = task.loss(objects["model"], batch, key)
        assert imbalance > 1  # what it would be if all were used alike
        assert_close(loss, losses.mean() + weight * imbalance)
        assert_close(metrics["train/imbalance"], imbalance)
        assert_close(metrics["train/perplexity"], jnp.exp(losses.mean()))


def test_the_weight_makes_the_use_of_experts_even():
    def after_forty_steps(weight: float) -> float:
        task, objects, batch = experts(weight)
        # All tokens prefer one expert at first.
        for block in objects["model"].blocks.blocks:
            router = block.mlp.router.kernel
            router[...] = router[...].at[:, 0].add(jnp.sign(router[:, 0]))
        program = Program(objects)
        program.compile_train(task.train_step, batch)
        for _ in range(40):
            metrics = program.train(batch)
        return float(metrics["train/imbalance"])

    even, uneven = after_forty_steps(1.0), after_forty_steps(0.0)
    assert even < 1.2 < uneven


@pytest.mark.parametrize("weight", [-0.1, math.inf])
def test_a_wrong_weight_of_the_balance(weight):
    with pytest.raises(ValueError, match=r"balance_weight=.* must be 0 or more, and finite"):
        LanguageModelConfig(balance_weight=weight)
