"""Word vectors: the loss, scores against gensim, the command line; `parity` has PyTorch's step."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.train import tiny
from tests.zoo.compare import random
from train import figures, loop, text_baselines, word_scores
from train.cli import main
from train.data import embedded
from train.data.words import Vocabulary
from train.losses import negative_sampling, shared_negative_sampling
from train.step import Program
from train.sync import Sync
from train.tasks import make_task
from train.tasks.word_vectors import pairs_of

# --- The loss -------------------------------------------------------------------------------------


def test_large_scores_give_no_infinity():
    far = jnp.array([1e4, -1e4])
    assert_close(negative_sampling(far, -far[:, None]), jnp.array([0.0, 2e4]))


def test_shared_noise_is_the_loss_of_every_pair():
    """With as many noise words as a pair has negatives, it is eq. 4 with the same for all pairs."""
    scores, noise = random(2, 4, 6, seed=1), random(2, 4, 3, seed=2)
    is_pair = jnp.asarray(np.random.default_rng(0).random((2, 4, 6)) < 0.4)
    every = negative_sampling(scores, jnp.broadcast_to(noise[:, :, None], (2, 4, 6, 3)))
    expected = jnp.where(is_pair, every, 0).sum(-1)
    assert_close(shared_negative_sampling(scores, is_pair, noise, num_negatives=3), expected)
    twice = jnp.concatenate([noise, noise], axis=-1)  # more noise words, of which each counts less
    assert_close(shared_negative_sampling(scores, is_pair, twice, num_negatives=3), expected)


def test_pairs_lie_within_reach():
    before, after = jnp.array([[0, 2, 1]]), jnp.array([[2, 0, 1]])
    found = pairs_of(before, after, 2)[0].astype(int).tolist()
    #          the block is in the middle
    assert found == [
        [0, 0, 0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 1, 0],
    ]


# --- The step -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task():
    recipe = tiny.recipe("word2vec")
    return make_task(recipe, zoo.Ops())


def batch_of(task, num: int):
    return task.data.train.gather(np.arange(num))


def test_the_first_loss_is_that_of_chance(task):
    """Context vectors start at 0, so every probability is 1/2: (1 + K) log 2 nats a pair."""
    batch = jax.tree.map(jnp.asarray, batch_of(task, 4))
    metrics = task.train_step(task.build(nnx.Rngs(0)), batch, Sync())
    assert_close(metrics["train/loss"], 6 * np.log(2.0))
    assert_close(metrics["train/learning_rate"], np.float32(0.025))


def test_bfloat16_is_near(task):
    batch, losses = jax.tree.map(jnp.asarray, batch_of(task, 8)), []
    for dtype in ("float32", "bfloat16"):
        recipe = dataclasses.replace(task.recipe, compute_dtype=dtype)
        low = type(task)(recipe, task.data, zoo.Ops())
        objects = low.build(nnx.Rngs(0))
        metrics = low.train_step(objects, batch, Sync())
        assert objects["model"].words.table.dtype == jnp.float32
        losses.append(metrics["train/loss"])
    assert_close(losses[1], losses[0], kind="bf16")


def test_learning_brings_the_loss_down(task):
    program = Program(task.build(nnx.Rngs(0)))
    batch = batch_of(task, 64)
    program.compile_train(task.train_step, batch)
    losses = [float(program.train(batch)["train/loss"]) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.1


# --- Scores and baseline --------------------------------------------------------------------------


def test_scores_are_those_of_gensim(tmp_path):
    from gensim.models import KeyedVectors

    pairs = embedded.read("wordsim353.tsv")
    analogies = embedded.read("questions-words.txt.xz")
    known = sorted({w.lower() for text in (pairs, analogies) for w in text.split() if w.isalpha()})
    known = [word for i, word in enumerate(known) if i % 7]  # some are missing
    vectors = np.random.default_rng(0).standard_normal((len(known), 6)).astype(np.float32)
    theirs = KeyedVectors(6)
    theirs.add_vectors(known, vectors)
    (tmp_path / "pairs.tsv").write_text("#" + pairs)
    (tmp_path / "questions.txt").write_text(analogies)
    _, spearman, missing = theirs.evaluate_word_pairs(tmp_path / "pairs.tsv")
    accuracy, sections = theirs.evaluate_word_analogies(tmp_path / "questions.txt")

    questions = word_scores.load_questions(Vocabulary(tuple(known), np.ones(len(known), int)))
    scores = questions.scores(vectors)
    assert scores["wordsim_spearman"] == pytest.approx(spearman[0], abs=1e-6)
    assert scores["wordsim_pairs"] == pytest.approx(353 * (1 - missing / 100))
    assert scores["analogy_accuracy"] == pytest.approx(accuracy)
    assert scores["analogies"] == sum(len(sections[-1][k]) for k in ("correct", "incorrect"))


def test_gensim_learns_the_same_words_twice_alike(task):
    first, again = (text_baselines.gensim_vectors(task.data, task.recipe) for _ in range(2))
    assert first.shape == (len(task.data.vocabulary), 8)
    assert np.array_equal(first, again)


def test_a_projection_names_its_points():
    figure = figures.projection_figure(random(5, 3), list("abcde"))
    assert [text.get_text() for text in figure.axes[0].texts] == list("abcde")
    with pytest.raises(ValueError, match=r"shape \(5, 3\) for 2 names"):
        figures.projection_figure(random(5, 3), ["a", "b"])


# --- The command line -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run with its baseline."""
    path = tmp_path_factory.mktemp("runs") / "word2vec"
    words = tiny.fields("word2vec", "--task.baseline gensim")
    assert main(["run", "word2vec", "--workdir", str(path), *words]) == 0
    return path


@pytest.fixture
def sample(capsys):
    """`sample` with some words: its exit code, its rows, and what it said."""

    def call(folder, *words):
        code = main(["sample", str(folder), "--json", *map(str, words)])
        out, err = capsys.readouterr()
        return code, json.loads(out)["samples"] if out else [], err

    return call


def test_a_run_has_scores_a_baseline_and_its_vocabulary(folder):
    result = json.loads((folder / "result.json").read_text())
    assert result["baseline"]["name"] == "gensim Word2Vec"
    assert result["threshold"] == pytest.approx(result["baseline"]["value"] - 0.02)
    assert result["metrics"].keys() == {
        f"eval/{name}"
        for name in ("wordsim_spearman", "wordsim_pairs", "analogy_accuracy", "analogies")
    }
    first = (folder / "vocabulary.tsv").read_text().splitlines()[0].split("\t")
    assert first[0] == "the" and int(first[1]) > 1000
    report = (folder / "report.html").read_text()
    assert "Nearest words" in report and "most frequent words in two dimensions" in report


def test_the_nearest_words(folder, sample):
    code, rows, _ = sample(folder, "--prompt", "King", "--num", 3)
    assert code == 0 and [row["word"] for row in rows] == ["king"] * 3
    cosines = [row["cosine"] for row in rows]
    assert cosines == sorted(cosines, reverse=True) and "king" not in {row["near"] for row in rows}
    assert len(sample(folder)[1]) == 16


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--prompt", "kingg"), "--prompt 'kingg' is no word that the text holds 5 times or more; "
         "did you mean 'king'?"),
        (("--prompt", "龍"), "--prompt '龍' is no word .*; give one word of the text"),
        (("--out", "words.png"), "words are printed and not drawn"),
        (("--num", "100000"), r"--num 100000: there are \d+ other words"),
    ],
)  # fmt: skip
def test_wrong_requests(folder, sample, words, says):
    code, _, err = sample(folder, *words)
    assert code == 2 and re.search(says.replace("?", r"\?"), err) and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--task.window 0", "window=0 must be at least 1"),
        ("--task.negatives 0", "negatives=0 must be at least 1"),
        ("--task.sample 1", "sample=1.0 must lie in [0, 1)"),
        ("--task.noise-power 2", "noise_power=2.0 must lie in [0, 1]"),
        ("--task.update-size 3", "batch_size=8 must be a multiple of task.update_size=3"),
        ("--task.block 1000000", "not enough for one block of 1000000"),
        ("--data.min-count 1000000", "words occur data.min_count=1000000 times or more"),
        ("--data.min-count 600", "WordSim-353, 3 are needed"),
        ("--data.name bible --data.columns en", "splits=('verses[:3000]', 'test') has 2 values"),
        ("--optim.name adam", "word vectors learn by gradient-descent alone"),
        ("--optim.clip-norm 1", "optim.clip-norm=1.0 would touch every word"),
        ("--num-microbatches 2", "set that instead"),
    ],
)
def test_wrong_settings_are_one_line(capsys, tmp_path, words, says):
    arguments = tiny.fields("word2vec", words)
    assert main(["run", "word2vec", "--workdir", str(tmp_path / "run"), *arguments]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_in_two_lives_ends_as_in_one(tmp_path, monkeypatch):
    """Stopped after a save in the second epoch of a small text, and gone on with."""
    words = "--steps 12 --batch-size 64 --data.splits verses[:600] test[:10] --checkpoint.every 2"
    recipe = tiny.recipe("word2vec", words)
    whole = loop.run(recipe, workdir=tmp_path / "whole")

    class Killed(Exception):
        pass

    def save_and_die(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if self.step == 8:
            self.checkpoints.wait()
            raise Killed

    save = loop.Trainer._save
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.Trainer, "_save", save_and_die)
        loop.run(recipe, workdir=tmp_path / "lives")
    lives = loop.run(recipe, workdir=tmp_path / "lives")
    assert lives["params_sha256"] == whole["params_sha256"]
    assert lives["metrics"] == whole["metrics"]
