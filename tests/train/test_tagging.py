"""Tagging as a task: its data, its loss, its spans, and its baseline."""

import dataclasses
import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
from tests.train import tiny
from tests.train.data.folders import F, write_set
from train import metrics, text_baselines
from train.cli import main
from train.data import TaggedTextConfig
from train.data.tagged_text import load_tagged_text
from train.errors import UserError
from train.tasks import make_task
from train.tasks.tagging import Tagging, _told

pytestmark = pytest.mark.usefixtures("two_buckets")
TAGS = ("B-food", "B-place", "I-place", "O")


@pytest.fixture(scope="module")
def built():
    task = make_task(tiny.recipe("intents-srl"), kernels.best())
    assert isinstance(task, Tagging)
    return task, task.build(nnx.Rngs(0))


def tagged(root, sentences, tags, *, frames=None):
    """A prepared set of tagged sentences; the first two are held out."""
    rows = [
        {"tokens": words, "tags": marks, "about": (frames or [0] * len(tags))[i]}
        for i, (words, marks) in enumerate(zip(sentences, tags, strict=True))
    ]
    features = {
        "tokens": F.Sequence(F.Text()),
        "tags": F.Sequence(F.ClassLabel(names=list(TAGS))),
        "about": F.ClassLabel(names=["eat", "go"]),
    }
    return write_set(root, features, {"train": rows[2:], "test": rows[:2]}, keys=None)


def test_words_keep_their_tags(tmp_path):
    sentences = [["eat", "bread"], ["go", "home"], ["don't", "go", "to", "the", "sea"], [], ["eat"]]
    tags = [[3, 0], [3, 1], [3, 3, 3, 1, 2], [], [3]]
    folder = tagged(tmp_path, sentences, tags, frames=[0, 1, 1, 0, 0])
    config = TaggedTextConfig(
        name="tfds:tiny", data_dir=folder, frame="about", tokenizer="word", max_tokens=6
    )
    data = load_tagged_text(config)
    assert data.frames == ("[eat]", "[go]") and data.tags == TAGS
    assert data.cleaning.missing_dropped == 1 and data.cleaning.truncated == 1
    batch = data.train.gather(np.array([0]))
    tokens = [data.tokenizer.id_to_token(int(token)) for token in batch["inputs"][0]]
    assert tokens == ["[go]", "don", "'", "t", "go", "to"]  # cut after six
    assert batch["words"][0].tolist() == [1, 4, 5]  # the first piece of each word
    assert batch["targets"][0].tolist() == [3, 3, 3]
    assert batch["targets_lengths"].tolist() == batch["words_lengths"].tolist() == [3]


@pytest.mark.parametrize("nothing", ["\u200b", "\u00ad", "\ufe0f", "", " "])
def test_a_word_that_leaves_no_token_keeps_its_tag(tmp_path, nothing):
    sentences = [[nothing], ["b"], [], ["the", nothing, "salt", "sea"], [nothing, nothing], ["a"]]
    tags = [[0], [3], [], [3, 1, 2, 2], [0, 3], [0]]
    folder = tagged(tmp_path, sentences, tags)
    data = load_tagged_text(TaggedTextConfig(name="tfds:tiny", data_dir=folder, tokenizer="word"))
    batch = data.train.gather(np.arange(2))
    tokens = [[data.tokenizer.id_to_token(int(token)) for token in row] for row in batch["inputs"]]
    assert tokens == [["the", "[UNK]", "salt", "sea"], ["[UNK]", "[UNK]", "[PAD]", "[PAD]"]]
    assert batch["words"].tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]
    assert batch["targets"].tolist() == [[3, 1, 2, 2], [0, 3, 0, 0]]
    assert batch["words_lengths"].tolist() == [len(words) for words in data.train_words[:2]]
    held_out = data.eval.gather(np.array([0]))
    assert held_out["words"].tolist() == [[0]] and held_out["targets"].tolist() == [[0]]


def test_a_word_that_nothing_can_stand_for_is_named(tmp_path):
    sentences = [["a"], ["b"], [], ["the", "sea"], ["the", "", "sea"]]
    folder = tagged(tmp_path, sentences, [[3], [3], [], [3, 3], [3, 3, 1]])
    config = TaggedTextConfig(name="tfds:tiny", data_dir=folder, tokenizer="bpe")
    with pytest.raises(UserError, match=r"split 'train' .* row 2 has word '', .* has no \[UNK\]"):
        load_tagged_text(config)


def test_a_tokenizer_without_the_frames_is_refused(tmp_path):
    folder = tagged(tmp_path, [["a"], ["b"], ["c"]], [[3]] * 3)
    config = TaggedTextConfig(name="tfds:tiny", data_dir=folder, tokenizer="word")
    plain = load_tagged_text(config).tokenizer
    with pytest.raises(UserError, match=r"has no \[eat\] mark"):
        load_tagged_text(dataclasses.replace(config, frame="about"), plain)
    with pytest.raises(ValueError, match="max_tokens=1 must be at least 2: one is the frame's"):
        TaggedTextConfig(frame="about", max_tokens=1)


def test_the_loss_is_the_mean_over_words(built):
    torch = pytest.importorskip("torch")
    task, objects = built
    batch = jax.tree.map(jnp.asarray, task.data.train.gather(np.arange(6)))
    model = task.trained(objects)
    loss, _ = task.loss(model, batch, jax.random.key(0))
    logits = torch.tensor(np.array(task.scores(model, batch)))
    wanted = torch.tensor(np.array(batch["targets"], np.int64))
    for row, length in enumerate(batch["words_lengths"]):
        wanted[row, length:] = -100  # ignored
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)


def test_padding_changes_no_tag_and_all_are_allowed(built):
    task, objects = built
    batch = jax.tree.map(jnp.asarray, task.data.eval.gather(np.arange(8)))
    query = task.query(batch)
    tags = np.asarray(task.predict(objects, query)["tags"])
    lengths = np.asarray(query["words_lengths"])
    most = int(lengths.max())
    tight = {**query, "inputs": query["inputs"][:, : int(query["inputs_lengths"].max())]}
    tight["words"] = query["words"][:, :most]
    again = np.asarray(task.predict(objects, tight)["tags"])
    for row, other, length in zip(tags, again, lengths, strict=True):
        assert row[:length].tolist() == other[:length].tolist()
        names = ["O", *(task.data.tags[tag] for tag in row[:length])]
        for before, name in pairwise(names):
            if name.startswith("I-"):
                assert before[2:] == name[2:] and before != "O"


def test_spans_count_whole():
    target = [["B-a", "I-a", "O", "B-b"], ["O", "B-a"]]
    guess = [["B-a", "O", "O", "B-b"], ["O", "B-a"]]  # one span is too short: 2 of 3
    scores = metrics.spans(target, guess)
    assert scores == pytest.approx({f"span_{n}": 2 / 3 for n in ("f1", "precision", "recall")})
    assert metrics.spans([["O"]], [["O"]])["span_f1"] == 0
    assert _told(["in", "the", "sea"], ["O", "B-place", "I-place"]) == "place: the sea"


def test_the_baseline_knows_words_only(tmp_path):
    sentences = [["eat", "bread"], ["see", "bread"], ["eat", "bread"], ["bread", "rises"]]
    tags = [[3, 0], [3, 0], [3, 0], [0, 3]]
    folder = tagged(tmp_path, [*sentences, ["eat", "bread", "now"]], [*tags, [3, 0, 3]])
    data = load_tagged_text(TaggedTextConfig(name="tfds:tiny", data_dir=folder, tokenizer="word"))
    assert text_baselines.frequent_tags(data).value == 1.0
    assert data.frames == () and data.cleaning.train_in_eval == 1


@pytest.mark.parametrize(
    ("sentences", "tags", "says"),
    [
        ([["a"], ["b"], ["c", "d"]], [[3], [3], [3]], "row 0 has 2 words and 1 tags"),
        ([["a"], ["b"], []], [[3], [3], []], "has no sentence left to use"),
        (
            [["a"], ["b"], [], ["the", "sea"]],
            [[3], [3], [], [3, 2]],
            r"row 1 starts a span with tag 'I-place' at word 1 \('sea'\); .* must have B-place",
        ),
        ([["a"], ["b"], ["sea"]], [[3], [3], [2]], "row 0 .* 'I-place' at word 0"),
        ([["a"], ["b"], ["salt", "sea"]], [[3], [3], [0, 2]], "row 0 .* 'I-place' at word 1"),
    ],
)
def test_faulty_sentences_are_refused(tmp_path, sentences, tags, says):
    folder = tagged(tmp_path, sentences, tags)
    with pytest.raises(UserError, match=says):
        load_tagged_text(TaggedTextConfig(name="tfds:tiny", data_dir=folder, tokenizer="word"))


def test_other_tags_than_spans_are_refused_before_anything_is_written(tmp_path, capsys):
    def run(folder, workdir):
        words = tiny.fields("intents-srl", "--data.name tfds:tiny --data.frame about")
        words += ["--data.target", "tags", "--data.train-split", "train", "--data.data-dir"]
        words += [str(folder), "--data.eval-split", "test", "--workdir", str(workdir)]
        return main(["run", "intents-srl", *words]), capsys.readouterr().err

    begun = tagged(tmp_path, [["a"], ["sea"], ["c"]], [[3], [2], [3]])  # IOB1
    code, said = run(begun, tmp_path / "run")
    assert code == 2 and "split 'test'" in said and "row 1 starts a span with tag 'I-place'" in said
    features = {
        "tokens": F.Sequence(F.Text()),
        "tags": F.Sequence(F.ClassLabel(names=["noun", "verb"])),
        "about": F.ClassLabel(names=["eat", "go"]),
    }
    rows = [{"tokens": ["sea"], "tags": [0], "about": 0}]
    words = write_set(tmp_path / "words", features, {"train": rows, "test": rows}, keys=None)
    code, said = run(words, tmp_path / "run")
    assert code == 2 and "feature 'tags' of" in said and "tag 'noun' is none of O, B-x" in said
    assert not (tmp_path / "run").exists()


def test_a_run_finds_spans(tmp_path, capsys):
    folder = str(tmp_path / "run")
    words = tiny.fields("intents-srl")
    assert main(["run", "intents-srl", "--workdir", folder, *words]) == 0
    assert "Attention in layer 2" in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert main(["sample", folder, "--num", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert [row.keys() for row in rows] == [{"sentence", "spans", "found"}] * 3
    assert main(["sample", folder, "--prompt", "turn it on"]) == 2
    assert "leave --out and --prompt out" in capsys.readouterr().err
    wrong = tiny.fields("intents-srl", "--data.max-tokens 40")
    assert main(["run", "intents-srl", "--workdir", str(tmp_path / "other"), *wrong]) == 2
    assert "is more than model.context=32" in capsys.readouterr().err
