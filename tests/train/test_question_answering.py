"""Question answering as a task: its loss, its choice among windows, its scores and its baseline."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
from tests.train import tiny
from train import metrics
from train.cli import main
from train.data.answered_text import FIRST, LAST, Question
from train.tasks import make_task
from train.tasks.question_answering import QuestionAnswering, QuestionAnsweringConfig
from train.text_baselines import sliding_window

pytestmark = pytest.mark.usefixtures("two_buckets")


@pytest.fixture(scope="module")
def built():
    task = make_task(tiny.recipe("cloze-qa"), kernels.best())
    assert isinstance(task, QuestionAnswering)
    return task, task.build(nnx.Rngs(0))


def test_the_loss_is_the_probability_of_all_right_places(built):
    torch = pytest.importorskip("torch")
    task, objects = built
    batch = task.data.train.gather(np.arange(8))
    batch["targets"][0, int(batch["passages"][0])] = FIRST | LAST  # in one row two places are right
    ready = jax.tree.map(jnp.asarray, batch)
    model = task.trained(objects)
    loss, _ = task.loss(model, ready, jax.random.key(0))
    parts = []
    for scores, bit in zip(task.scores(model, task.query(ready)), (FIRST, LAST), strict=True):
        probabilities = torch.softmax(torch.tensor(np.array(scores)), dim=-1)
        right = torch.tensor((batch["targets"] & bit) > 0)
        parts.append(-(probabilities * right).sum(-1).log())
    np.testing.assert_allclose(loss, torch.cat(parts).mean().item(), rtol=1e-5)


def test_one_right_place_is_pytorchs_cross_entropy(built):
    torch = pytest.importorskip("torch")
    task, objects = built
    single = [i for i in range(40) if sum(task.data.train.columns["targets"][i] > 0) == 1]
    batch = task.data.train.gather(np.array(single[:4]))
    ready = jax.tree.map(jnp.asarray, batch)
    loss, _ = task.loss(task.trained(objects), ready, jax.random.key(0))
    wanted = torch.tensor((batch["targets"] > 0).argmax(-1))
    start, end = (
        torch.nn.functional.cross_entropy(torch.tensor(np.array(scores)), wanted)
        for scores in task.scores(task.trained(objects), task.query(ready))
    )
    np.testing.assert_allclose(loss, (start + end).item() / 2, rtol=1e-5)


def test_padding_and_the_question_are_no_answer(built):
    task, objects = built
    query = jax.tree.map(jnp.asarray, task.query(task.data.eval.gather(np.arange(8))))
    scores = np.asarray(task.scores(task.trained(objects), query)[0])
    for row, begin, length in zip(scores, query["passages"], query["inputs_lengths"], strict=True):
        open_ = np.flatnonzero(np.isfinite(row))
        assert open_.tolist() == [0, *range(int(begin), int(length) - 1)]
    one = QuestionAnsweringConfig(max_answer_tokens=1)
    short = QuestionAnswering(dataclasses.replace(task.recipe, task=one), task.data, task.ops)
    found = short.predict(objects, query)
    np.testing.assert_array_equal(found["start"], found["end"])
    longest = int(query["inputs_lengths"].max())
    tight = {**query, "inputs": query["inputs"][:, :longest]}
    np.testing.assert_allclose(
        task.scores(task.trained(objects), tight)[0], scores[:, :longest], rtol=1e-4, atol=1e-5
    )


def test_the_best_span_of_all_windows_is_the_answer(built):
    task, _ = built
    begin = int(task.data.eval.columns["passages"][0])
    passage = "Ada saw Eve"
    windows = dataclasses.replace(
        task.data,
        questions=[Question(passage, "?", ("Eve",))],
        owners=np.zeros(2, int),
        offsets=[np.array([[0, 3], [4, 7], [8, 11]])] * 2,
    )
    other = QuestionAnswering(task.recipe, windows, task.ops)
    outputs = {
        "start": np.array([[begin, begin], [begin + 2, begin]]),
        "end": np.array([[begin, begin + 1], [begin + 2, begin]]),
        "score": np.array([[1.0, 0.5], [3.0, -np.inf]]),
        "no_answer": np.array([4.0, 2.0]),
    }
    # The windows of one question start at the same place, as their questions are as long.
    windows.eval.columns["passages"][1] = begin
    assert other._answers(outputs, np.arange(2)) == [["Eve", "Ada", "Ada saw"]]
    other.data = dataclasses.replace(windows, unanswerable=True)
    assert other._answers(outputs, np.arange(2))[0][:2] == ["Eve", ""]  # 3 beats the least, 2
    strict = QuestionAnsweringConfig(no_answer_threshold=1.5)
    other.recipe = dataclasses.replace(task.recipe, task=strict)
    assert other._answers(outputs, np.arange(2))[0][:2] == ["", "Eve"]


ANSWERS = [
    (["the Amazon"], "Amazon."),
    (["Yahweh your God"], "your God"),
    (["an ox", "two oxen"], "oxen, two!"),
    (["Saul"], "David"),
    (["rod-iron"], "rod iron"),
    ([], ""),
    ([], "Nile"),
    (["the"], "a"),
]


def test_scores_are_those_of_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.functional.text")
    for wanted, answer in ANSWERS:
        asked = {"answers": {"answer_start": [0], "text": wanted or [""]}, "id": "1"}
        expected = theirs.squad([{"prediction_text": answer, "id": "1"}], [asked])
        found = metrics.squad([wanted], [answer])
        assert 100 * found["exact_match"] == pytest.approx(expected["exact_match"].item()), answer
        assert 100 * found["answer_f1"] == pytest.approx(expected["f1"].item()), answer
    found = metrics.squad([wanted for wanted, _ in ANSWERS], [answer for _, answer in ANSWERS])
    assert found["exact_match"] == 3 / 8  # the mean over questions


def test_the_baseline_looks_at_neighbours(built):
    task, _ = built
    rows = [
        Question("Eve ate. Adam hid behind the tree.", "Who hid behind a tree? _ did.", ("Adam",)),
        Question("The salt sea rose; the old king fell.", "The old _ fell.", ("king",)),
        Question("It was so.", "It was _.", ("light",)),  # no phrase at all
    ]
    found = sliding_window(dataclasses.replace(task.data, questions=rows))
    assert found.value == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "run"
    words = tiny.fields("cloze-qa", "--task.baseline sliding-window")
    assert main(["run", "cloze-qa", "--workdir", str(path), *words]) == 0
    return str(path)


def test_the_report_draws_attention(folder):
    report = (Path(folder) / "report.html").read_text()
    for layer in (1, 2):
        assert f"Attention of the question to the passage in layer {layer}" in report


def test_answers_are_printed(folder, capsys):
    capsys.readouterr()
    assert main(["sample", folder, "--num", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("passage ")
    assert all(printed.count(f"  {name} ") >= 2 for name in ("question", "answer", "found"))


def test_a_run_finds_answers(folder, tmp_path, capsys):
    result = json.loads((Path(folder) / "result.json").read_text())
    assert result["baseline"]["name"].startswith("overlap of ")
    assert {"eval/exact_match", "eval/answer_f1"} <= result["metrics"].keys()
    capsys.readouterr()
    assert main(["sample", folder, "--num", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert [row.keys() for row in rows] == [{"passage", "question", "answer", "found"}] * 3
    assert all(answer in row["passage"] for row in rows for answer in row["found"])
    for words, says in [
        (["--prompt", "who?"], "leave --out and --prompt out"),
        (["--num", "31"], "the evaluation split has 30 examples"),
    ]:
        assert main(["sample", folder, *words]) == 2
        assert says in capsys.readouterr().err
    wrong = tiny.fields("cloze-qa", "--data.max-tokens 400")
    assert main(["run", "cloze-qa", "--workdir", str(tmp_path / "other"), *wrong]) == 2
    assert "is more than model.context=192" in capsys.readouterr().err
