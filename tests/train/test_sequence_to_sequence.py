"""From text to text: the loss against PyTorch's, padding, search, scores, the command line."""

import dataclasses
import io
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from rich.console import Console

from tests.close import assert_close
from tests.train import tiny
from train import loop
from train.cli import main
from train.metrics import bleu, rouge_l
from train.runfolder import RunFolder
from train.tasks.sequence_to_sequence import SequenceToSequenceConfig
from train.text_baselines import copied_source, first_words

RECIPES = ("translate-en-es", "translate-lstm")
pytestmark = pytest.mark.usefixtures("two_buckets")


@pytest.fixture(scope="module", params=RECIPES)
def built(request):
    """A task and its objects."""
    return loop.build(tiny.recipe(request.param))


def pairs(source, num):
    """The first pairs of a source, on the device."""
    return jax.tree.map(jnp.asarray, source.gather(np.arange(num)))


def evaluated(task, objects, batch):
    return jax.jit(lambda batch: task.eval_step(objects, batch))(batch)


def widened(batch, more=3, filler=5):
    """The same pairs with more padding, of other tokens."""
    wide = dict(batch)
    for side in ("source", "target"):
        lengths = np.asarray(batch[f"{side}_lengths"])
        values = np.pad(batch[side], ((0, 0), (0, more)), constant_values=filler)
        padding = np.arange(values.shape[1]) >= lengths[:, None]
        wide[side] = np.where(padding, filler, values)
    return jax.tree.map(jnp.asarray, wide)


def test_the_loss_is_pytorchs(built):
    """Smoothed cross-entropy, the mean of all tokens but those that are padding."""
    torch = pytest.importorskip("torch")
    task, objects = built
    batch = pairs(task.data.train, 6)
    model = task.trained(objects)
    loss, _ = task.loss(model, batch, jax.random.key(0))
    logits = model(batch["source"], batch["target"][:, :-1], source_lengths=batch["source_lengths"])
    labels = np.array(batch["target"][:, 1:], np.int64)
    labels[np.arange(labels.shape[1]) >= np.array(batch["target_lengths"])[:, None] - 1] = -100
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(np.asarray(logits)).flatten(0, 1),
        torch.tensor(labels).flatten(),
        label_smoothing=task.config.label_smoothing,
        ignore_index=-100,
    )
    assert task.config.label_smoothing == 0.1
    assert_close(loss, expected)


def test_padding_changes_nothing(built):
    task, objects = built
    batch = pairs(task.data.eval, 5)
    model = task.trained(objects)
    narrow, wide = (evaluated(task, objects, b) for b in (batch, widened(batch)))
    assert_close(wide["loss"], narrow["loss"])
    for name in ("tokens", "written"):
        np.testing.assert_array_equal(wide[name], narrow[name])
    loss = jax.jit(lambda batch: task.loss(model, batch, jax.random.key(0))[0])
    losses = [loss(b) for b in (batch, widened(batch))]
    assert_close(losses[1], losses[0])


def test_a_pair_alone_is_as_it_is_among_others(built):
    task, objects = built
    alone = jax.tree.map(lambda x: x[2:3], pairs(task.data.eval, 4))
    together = evaluated(task, objects, pairs(task.data.eval, 4))
    alone = evaluated(task, objects, alone)
    assert_close(alone["loss"][0], together["loss"][2], kind="composite")
    np.testing.assert_array_equal(alone["written"][0], together["written"][2])


def test_one_beam_is_greedy(built):
    task, objects = built
    task = type(task)(
        dataclasses.replace(task.recipe, task=SequenceToSequenceConfig(beam_size=1)),
        task.data,
        task.ops,
    )
    batch = pairs(task.data.eval, 1)
    predict = jax.jit(lambda query: task.predict(objects, query)["tokens"])
    found = np.asarray(predict(task.query(batch)))[0]
    model = task.trained(objects)
    read = jax.jit(lambda y: model(batch["source"], y, source_lengths=batch["source_lengths"]))
    end = task.data.tokenizer.token_to_id("[EOS]")
    target = np.full(len(found) + 1, end)
    target[0] = task.data.tokenizer.token_to_id("[BOS]")
    for t in range(len(found)):  # the decoder does not look at what comes after t
        target[t + 1] = read(jnp.asarray(target)[None])[0, t].argmax()
        if target[t + 1] == end:
            break
    assert found.tolist() == target[1:].tolist()


def test_the_metrics_are_of_all_tokens_and_of_whole_texts(built):
    task, objects = built
    batch = pairs(task.data.eval, len(task.data.eval))
    outputs = {name: np.asarray(values) for name, values in evaluated(task, objects, batch).items()}
    metrics = task.summarise(outputs)
    assert outputs["tokens"].tolist() == (batch["target_lengths"] - 1).tolist()
    assert metrics["loss"] == pytest.approx(outputs["loss"].sum() / outputs["tokens"].sum())
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"]))
    references, written = task.data.eval_texts["target"], task.texts(outputs["written"])
    assert metrics["bleu"] == pytest.approx(bleu(references, written))
    assert metrics["rouge_l"] == pytest.approx(rouge_l(references, written))
    # The tokens of a target, its begin mark left out, say how the target begins: it was cut.
    for text, reference in zip(
        task.texts(np.asarray(batch["target"][:, 1:])), references, strict=True
    ):
        assert len(text) > 10 and reference.startswith(text.rstrip("\ufffd"))


def test_scores_are_the_libraries():
    import sacrebleu
    from rouge_score import rouge_scorer

    references = ["The cat sat on the mat today.", "There is a green house", "a b c d e"]
    written = ["the cat sat on a mat today.", "There was a green house", ""]
    assert bleu(references, written) == sacrebleu.corpus_bleu(written, [references]).score
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    both = zip(references, written, strict=True)
    scores = [scorer.score(*pair)["rougeL"].fmeasure for pair in both]
    assert rouge_l(references, written) == pytest.approx(sum(scores) / 3)


def test_simple_baselines(built):
    task, _ = built
    sources, references = (task.data.eval_texts[side] for side in ("source", "target"))
    assert copied_source(task.data).value == pytest.approx(bleu(references, sources))
    found = first_words(task.data)
    starts = [" ".join(text.split()[:8]) for text in sources]
    assert found.value >= rouge_l(references, starts)
    assert found.name.endswith("of the source")


# --- The command line -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run with the baseline that it trains."""
    path = tmp_path_factory.mktemp("runs") / "run"
    words = tiny.fields("translate-en-es", "--task.baseline translate-lstm --steps 4")
    assert main(["run", "translate-en-es", "--workdir", str(path), *words]) == 0
    return path


def test_the_result_and_its_baseline(folder):
    result = json.loads((folder / "result.json").read_text())
    assert {"eval/loss", "eval/perplexity", "eval/bleu", "eval/rouge_l"} == set(result["metrics"])
    assert result["baseline"]["name"] == "translate-lstm"
    assert result["cleaning"]["truncated"] > 0
    other = json.loads((folder / "baseline" / "result.json").read_text())
    assert (other["recipe"], other["model"]) == ("translate-lstm", "seq2seq-nano")
    assert other["steps"] == result["steps"] == 4
    assert other["metrics"]["eval/bleu"] == result["baseline"]["value"]
    report = (folder / "report.html").read_text()
    assert "What it writes" in report and "Attention to the source in layer 2" in report
    assert "Attention to the source in layer 1" in (folder / "baseline/report.html").read_text()


def test_samples(folder, capsys):
    def sample(*words):
        code = main(["sample", str(folder), "--json", *map(str, words)])
        out, err = capsys.readouterr()
        return code, json.loads(out)["samples"] if out else [], err

    capsys.readouterr()
    code, rows, _ = sample("--num", 3)
    assert code == 0 and len(rows) == 3
    assert set(rows[0]) == {"example", "source", "reference", "written"}
    code, (row,), _ = sample("--prompt", rows[0]["source"])
    assert code == 0 and row["written"] == rows[0]["written"]
    code, (row,), _ = sample("--prompt", "word " * 100)
    assert row["prompt_tokens_unseen"] > 0
    for words, says in [
        (("--prompt", " "), "--prompt has no text"),
        (("--prompt", "caf\udce9"), "--prompt is not UTF-8"),
        (("--out", "text.png"), "a text is printed and not drawn"),
        (("--num", 13), "the evaluation split has 12 examples"),
    ]:
        code, _, err = sample(*words)
        assert code == 2 and says in err and err.count("\n") == 1


def test_what_is_written_is_printed(folder, capsys):
    capsys.readouterr()
    assert main(["sample", str(folder), "--num", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("example ") for line in lines)
    assert main(["sample", str(folder), "--prompt", "In the beginning"]) == 0
    assert capsys.readouterr().out.startswith("prompt In the beginning  written ")


def test_attention_is_drawn_of_a_scanned_model(tmp_path):
    recipe = tiny.recipe("synopsis", "--model.scan --steps 2 --eval-every 2")
    result = loop.run(recipe, workdir=tmp_path / "run", console=Console(file=io.StringIO()))
    assert result["metrics"]["eval/rouge_l"] >= 0
    assert "Attention to the source in layer 2" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 must lie in \[0, 1\)"),
        ({"beam_size": 0}, "beam_size=0 must be at least 1"),
        ({"length_penalty": -1.0}, "length_penalty=-1.0 must be 0"),
    ],
)
def test_wrong_settings(fields, says):
    with pytest.raises(ValueError, match=says):
        SequenceToSequenceConfig(**fields)


def test_exported_as_a_program_of_any_batch_size(folder, tmp_path):
    """In a process of its own, as the annotations that tests check know no unknown batch size."""
    out = tmp_path / "model.stablehlo"
    command = [sys.executable, "-m", "train", "export", folder, "--format", "stablehlo"]
    subprocess.run([*command, "--out", out], check=True, timeout=300, capture_output=True)
    program = export.deserialize(bytearray(out.read_bytes()))
    task, loaded, _ = loop.restore(RunFolder(folder), Console(file=io.StringIO()))
    predict = jax.jit(lambda query: task.predict(loaded.objects(), query)["tokens"])
    for size in (1, 3):
        query = task.query(pairs(task.data.eval, size))
        np.testing.assert_array_equal(program.call(query)["tokens"], predict(query))
