"""Classifying series and texts: padding, the single logit, baselines, other people's sets."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
from tests.train import tiny
from tests.train.data.folders import F, write_set
from train.baselines import _warped_distances
from train.cli import main
from train.data import DataConfig, LabelledTextConfig
from train.data.labelled_text import load_labelled_text
from train.data.series import load_series
from train.errors import UserError
from train.tasks import make_task
from train.tasks.text_classification import TextClassification


@pytest.fixture(scope="module", params=["vowels-lstm", "sentiment-lstm"])
def trained(request):
    task = make_task(tiny.recipe(request.param), kernels.best())
    return task, task.build(nnx.Rngs(0))


def test_padding_changes_no_answer(trained):
    task, objects = trained
    rows = np.arange(6)
    query = task.query(task.data.eval.gather(rows))
    longest = int(query["inputs_lengths"].max())
    wide = task.predict(objects, jax.tree.map(jnp.asarray, query))["probabilities"]
    tight = jax.tree.map(jnp.asarray, {**query, "inputs": query["inputs"][:, :longest]})
    np.testing.assert_allclose(task.predict(objects, tight)["probabilities"], wide, atol=1e-6)
    spoilt = query["inputs"].copy()
    spoilt[np.arange(spoilt.shape[1]) >= query["inputs_lengths"][:, None]] = 1
    noisy = jax.tree.map(jnp.asarray, {**query, "inputs": spoilt})
    noisy = task.predict(objects, noisy)["probabilities"]
    np.testing.assert_array_equal(noisy, wide)


def test_one_logit_is_a_sigmoid():
    torch = pytest.importorskip("torch")
    task = make_task(tiny.recipe("sentiment-lstm"), kernels.best())
    assert isinstance(task, TextClassification)
    objects = task.build(nnx.Rngs(0))
    batch = jax.tree.map(jnp.asarray, task.data.train.gather(np.arange(8)))
    z = task.trained(objects)(batch["inputs"], lengths=batch["inputs_lengths"])
    assert z.shape == (8, 1)
    outputs = task.eval_step(objects, batch)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(np.asarray(z[:, 0])),
        torch.tensor(np.asarray(batch["targets"], np.float32)),
        reduction="none",
    )
    np.testing.assert_allclose(outputs["loss"], expected.numpy(), rtol=1e-5)
    np.testing.assert_allclose(
        outputs["probabilities"][:, 1], torch.sigmoid(torch.tensor(np.asarray(z[:, 0]))), rtol=1e-5
    )


def test_warped_distances_are_the_least_over_all_paths():
    def least(x, y):
        """By its definition: the cheapest of all monotone paths."""
        here = float(np.square(x[-1] - y[-1]).sum())
        if len(x) == 1 and len(y) == 1:
            return here
        before = []
        if len(x) > 1:
            before.append(least(x[:-1], y))
        if len(y) > 1:
            before.append(least(x, y[:-1]))
        if len(x) > 1 and len(y) > 1:
            before.append(least(x[:-1], y[:-1]))
        return here + min(before)

    random = np.random.default_rng(0)
    series, other = random.normal(size=(4, 5, 2)), random.normal(size=(4, 2))
    lengths = np.array([5, 1, 3, 4])
    got = _warped_distances(series, lengths, other)
    expected = [least(row[:n], other) for row, n in zip(series, lengths, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def series_set(root, *, length=4, value=1.0, label=0):
    rows = [{"series": np.full((i % 5 + 1, 2), i, np.float32), "label": i % 3} for i in range(40)]
    odd = {"series": np.full((length, 2), value, np.float32), "label": label}
    features = {
        "series": F.Tensor(shape=(None, 2), dtype=np.float32),
        "label": F.ClassLabel(names=["a", "b", "c"]),
    }
    splits = {"train": [*rows, odd], "test": rows[:1] * 2 + rows[30:40]}
    return write_set(root, features, splits)


def test_somebody_elses_series(tmp_path):
    data = load_series(DataConfig(name="tfds:tiny", data_dir=series_set(tmp_path, length=7)))
    assert data.input_shape == (7, 2) and data.class_names == ("a", "b", "c")
    assert data.cleaning.train_rows == 41 and data.cleaning.eval_rows == 12
    assert data.cleaning.train_in_eval == 11 and data.cleaning.eval_duplicates == 1
    batch = data.train.arrays()
    rows = zip(batch["inputs"], batch["inputs_lengths"], strict=True)
    flat = np.concatenate([series[:length] for series, length in rows])
    np.testing.assert_allclose(data.mean, flat.mean(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"value": np.nan}, r"row 40 has missing \(NaN\) values, as 1 of 41 rows .* drop$"),
        ({"length": 0}, r"row 40 has no steps; at least one is needed"),
        ({"value": np.inf}, r"row 40 has infinite values"),
    ],
)
def test_faulty_series_are_refused_or_dropped(tmp_path, fault, says):
    folder = series_set(tmp_path, **fault)
    with pytest.raises(UserError, match=says):
        load_series(DataConfig(name="tfds:tiny", data_dir=folder))
    data = load_series(DataConfig(name="tfds:tiny", data_dir=folder, missing="drop"))
    cleaning = data.cleaning
    assert cleaning.missing_dropped + cleaning.malformed_dropped == 1
    with pytest.raises(UserError, match="are not repaired"):
        load_series(DataConfig(name="tfds:tiny", data_dir=folder, missing="repair"))


def reviews(root, texts: list[str]):
    """A prepared set with the features of imdb_reviews."""
    features = {"text": F.Text(), "label": F.ClassLabel(names=["neg", "pos"])}
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(texts)]
    return write_set(root, features, {"train": rows, "test": rows[:4]}, name="imdb_reviews")


def test_texts_are_cleaned_and_counted(tmp_path):
    texts = [f"film {i} was {'bad' if i % 2 == 0 else 'good'}" for i in range(20)]
    texts += ["", " ", texts[10], "a b c d e f g h i j"]
    config = LabelledTextConfig(
        name="tfds:imdb_reviews",
        data_dir=reviews(tmp_path, texts),
        tokenizer="word",
        max_tokens=6,
    )
    data = load_labelled_text(config)
    cleaning = data.cleaning
    assert (cleaning.train_rows, cleaning.missing_dropped) == (24, 2)
    assert (cleaning.train_in_eval, cleaning.train_duplicates, cleaning.truncated) == (4, 1, 1)
    assert len(data.train) == len(data.train_texts) == 17
    assert data.train.longest["inputs"] == 6
    row = data.train.columns["inputs"][0]
    words = [data.tokenizer.id_to_token(int(token)) for token in row]
    assert words == data.train_texts[0].split()


def test_a_recipe_takes_somebody_elses_texts(tmp_path):
    texts = [
        f"film {i} was {'bad' if i % 2 == 0 else 'good'}" + " very" * (i % 40) for i in range(400)
    ]
    folder = tmp_path / "run"
    words = tiny.fields("sentiment-lstm", "--data.name tfds:imdb_reviews --data.target label")
    words += ["--data.data-dir", str(reviews(tmp_path, texts))]
    words += ["--data.train-split", "train", "--data.eval-split", "test"]
    assert main(["run", "sentiment-lstm", "--workdir", str(folder), *words]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["padding_fraction"] < 0.15
    assert result["cleaning"]["eval_rows"] == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--data.column nothing", "has no text feature 'nothing'; it has source, text"),
        ("--data.target text", "has no label feature 'text'; it has label: --data.target"),
        ("--data.max-tokens 0", "must be at least 1"),
        ("--data.vocab-size 3", "must be at least 258"),
    ],
)
def test_wrong_texts_are_one_line(tmp_path, capsys, words, says):
    fields = tiny.fields("sentiment-lstm", words)
    folder = tmp_path / "run"
    assert main(["run", "sentiment-lstm", "--workdir", str(folder), *fields]) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
    assert not folder.exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run on texts."""
    path = str(tmp_path_factory.mktemp("runs") / "run")
    words = tiny.fields("sentiment-lstm", "--data.max-tokens 5")
    assert main(["run", "sentiment-lstm", "--workdir", path, *words]) == 0
    return path


def test_judgements_are_printed(folder, capsys):
    capsys.readouterr()
    assert main(["sample", folder, "--num", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("  predicted " in line and "  text " in line for line in lines)
    assert main(["sample", folder, "--prompt", "a fine film"]) == 0
    assert capsys.readouterr().out.startswith("prompt a fine film  predicted ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--prompt", ""), "--prompt has no text"),
        (("--prompt", " \n"), "--prompt has no text"),
        (("--prompt", "caf\udce9"), "--prompt is not UTF-8"),
        (("--prompt", "a fine film", "--out", "x.png"), "a text is judged and not drawn"),
        (("--out", "x.png"), "holds no images to draw"),
    ],
)
def test_wrong_prompts(folder, capsys, words, says):
    capsys.readouterr()
    assert main(["sample", folder, *words]) == 2
    said = capsys.readouterr()
    assert says in said.err and said.err.count("\n") == 1 and not said.out


def test_a_prompt_is_judged(folder, capsys):
    capsys.readouterr()
    prompt = "a film that nobody will see twice"
    assert main(["sample", folder, "--prompt", prompt, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["samples"]
    assert row["predicted"] in ("negative", "positive")
    assert row["prompt_tokens_unseen"] == 2  # nothing is lost silently
