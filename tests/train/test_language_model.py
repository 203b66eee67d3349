"""Language models through the command line: a run, its tokenizer, its texts, wrong prompts."""

import json
import math
import shutil

import pytest

from tests.train import tiny
from train.cli import main

RECIPES = ("bible-gpt", "bible-lstm-lm")


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


def test_a_long_prompt_is_cut_and_says_so(folder, sample):
    _, rows, _ = sample(folder, "--prompt", "In the beginning", "--length", 5)
    assert rows[0]["prompt_tokens_unseen"] == len("In the beginning") - 8
    end = sample(folder, "--prompt", "eginning", "--length", 5)[1]
    assert end[0]["text"] == rows[0]["text"]  # what was cut changed nothing


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--prompt", ""), "--prompt is empty"),
        (("--prompt", "龍"), "--prompt holds '龍', which the train split never held"),
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
    assert ("Attention in layer 2" in report) == (folder.name == "bible-gpt")
