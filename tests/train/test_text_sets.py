"""Each recipe on text takes somebody else's set: tiny prepared folders with the features of TFDS's.

Classes of texts are in test_sequence_tasks.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.train import tiny
from tests.train.data.folders import F, write_set
from train.cli import main
from train.data import sequences

GERMAN = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf"}
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def sentences(count: int, seed: int) -> list[list[str]]:
    """Seven words each, and no two alike."""
    random = np.random.default_rng(seed)
    words = random.choice(6 * [*GERMAN], (count, 6)).tolist()
    return [[*row, str(100 * seed + i)] for i, row in enumerate(words)]


SPLITS = {"train": sentences(40, 0), "validation": sentences(10, 1), "test": sentences(10, 2)}


def running(root: Path) -> None:
    rows = {split: [{"text": " ".join(words)} for words in SPLITS[split]] for split in SPLITS}
    del rows["validation"]  # as lm1b has it
    write_set(root, {"text": F.Text()}, rows, name="lm1b", keys=("text", "text"))


def translations(root: Path) -> None:
    def row(words: list[str]) -> dict[str, str]:
        german = [GERMAN.get(word, word) for word in words]
        return {"de": " ".join(german), "en": " ".join(words)}

    rows = {split: [row(words) for words in SPLITS[split]] for split in SPLITS}
    features = F.Translation(languages=("de", "en"))
    write_set(root / "wmt14_translate", features, rows, name="de-en", keys=("de", "en"))


def summaries(root: Path) -> None:
    def row(words: list[str]) -> dict[str, str]:
        text = " ".join(words)
        return {"article": text, "highlights": words[0], "id": words[-1], "publisher": "nobody"}

    features = {name: F.Text() for name in ("article", "highlights", "id", "publisher")}
    rows = {split: [row(words) for words in SPLITS[split]] for split in SPLITS}
    write_set(root, features, rows, name="cnn_dailymail", keys=("article", "highlights"))


def named(root: Path) -> None:
    """Each second word and the one after it are a place."""
    tags = [0, 3, 4, 0, 3, 4, 0]
    features = {"tokens": F.Sequence(F.Text())}
    features["ner"] = F.Sequence(F.ClassLabel(names=list(TAGS)))
    features["pos"] = F.Sequence(F.ClassLabel(names=["NN", "VB"]))
    rows = {
        split: [{"tokens": words, "ner": tags, "pos": [0] * 7} for words in SPLITS[split]]
        for split in SPLITS
    }
    rows["dev"] = rows.pop("validation")
    write_set(root, features, rows, name="conll2003", keys=None)


def questions(root: Path) -> None:
    def row(words: list[str]) -> dict:
        answer = words[2]
        return {
            "id": words[-1],
            "title": "numbers",
            "context": " ".join(words),
            "question": f"What is after {words[0]} {words[1]} in {words[-1]}?",
            "answers": {"text": [answer], "answer_start": [len(f"{words[0]} {words[1]} ")]},
        }

    features = {name: F.Text() for name in ("id", "title", "context", "question")}
    number = F.Scalar(dtype=np.int32)
    features["answers"] = F.Sequence({"text": F.Text(), "answer_start": number})
    rows = {split: [row(words) for words in SPLITS[split]] for split in SPLITS}
    del rows["test"]  # SQuAD's is not public
    write_set(root, features, rows, name="squad", keys=None)


def words_of(name: str, *more: str) -> list[str]:
    """The fields that make a recipe tiny, but for the splits, which are those of its own set."""
    words = tiny.fields(name)
    for flag in ("--data.train-split", "--data.eval-split"):
        place = words.index(flag)
        del words[place : place + 2]
    return [*words, "--steps", "2", "--eval-every", "2", "--model.num-layers", "1", *more]


TEXT = ["--data.column", "text"]
BOTH = ["--data.train-split", "train", "--data.eval-split", "test"]
CASES: dict[str, tuple[Callable[[Path], None], str, list[str]]] = {
    "bible-gpt": (running, "lm1b", [*TEXT, *BOTH]),
    "bible-bert": (running, "lm1b", TEXT),
    "translate-en-es": (
        translations,
        "wmt14_translate/de-en",
        ["--data.column", "de", "--data.target", "en"],
    ),
    "synopsis": (summaries, "cnn_dailymail", []),
    "intents-srl": (named, "conll2003", ["--data.target", "ner", "--data.frame", ""]),
    "cloze-qa": (questions, "squad", []),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_recipe_takes_somebody_elses_set(name, tmp_path, monkeypatch):
    write, set_name, flags = CASES[name]
    write(tmp_path)
    monkeypatch.setattr(sequences, "MAX_BUCKETS", 1)  # a step is compiled for each
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    folder = tmp_path / "run"
    words = words_of(name, "--data", f"tfds:{set_name}", *flags)
    assert main(["run", name, "--workdir", str(folder), *words]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["steps"] == 2
    assert (result["cleaning"]["train_rows"], result["cleaning"]["eval_rows"]) == (40, 10)
    assert np.isfinite(list(result["metrics"].values())).all()


def test_a_recipe_names_the_flags_for_another_pair(tmp_path, monkeypatch, capsys):
    translations(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    words = words_of("translate-en-es", "--data", "tfds:wmt14_translate/de-en")
    assert main(["run", "translate-en-es", "--workdir", str(tmp_path / "run"), *words]) == 2
    said = capsys.readouterr().err
    assert "no text feature 'es'; it has de, en: --data.target" in said
    flags = re.search(r"its own pair is (.*)", said)
    assert flags and flags[1].split() == CASES["translate-en-es"][2]
    assert not (tmp_path / "run").exists()
