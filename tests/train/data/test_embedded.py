"""The embedded sets: their splits, first preparation, and every way that can go wrong."""

import lzma
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from train.data import DataConfig, embedded, load, records
from train.data.embedded import FOLDER, NAMES, SHA256, VERSION
from train.data.prepare import prepare
from train.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def start(code: str, home: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"TFDS_DATA_DIR": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig())


def test_digits_are_stratified_400_to_100(digits):
    assert digits.input_shape == (28, 28, 1)
    assert digits.class_names == tuple("0123456789")
    train, test = digits.train.arrays(), digits.eval.arrays()
    assert np.bincount(train["targets"]).tolist() == [400] * 10
    assert np.bincount(test["targets"]).tolist() == [100] * 10
    assert train["inputs"].dtype == np.uint8 and train["targets"].dtype == np.int32


def test_digits_equal_the_file(digits):
    import gzip

    with gzip.open(FOLDER / "mnist_5k.csv.gz") as stream:
        table = np.loadtxt(stream, delimiter=",", dtype=np.uint8, max_rows=900)
    expected = table[500:900]  # class 1: its first 400 rows train
    got = digits.train.gather(np.arange(400, 800))
    np.testing.assert_array_equal(got["inputs"].reshape(400, 784), expected[:, :-1])
    np.testing.assert_array_equal(got["targets"], expected[:, -1])
    np.testing.assert_array_equal(
        digits.eval.gather(np.arange(100))["inputs"].reshape(100, 784), table[400:500, :-1]
    )


def test_digit_statistics(digits):
    pixels = digits.train.arrays()["inputs"].astype(np.float64)
    np.testing.assert_allclose(digits.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(digits.std, pixels.std((0, 1, 2)), rtol=1e-6)
    assert digits.cleaning.train_rows == 4000 and digits.cleaning.eval_rows == 1000
    assert digits.cleaning.train_duplicates == digits.cleaning.train_in_eval == 0


@pytest.mark.parametrize(
    ("name", "counts", "features", "classes"),
    [
        ("diabetes", (354, 88), 10, ()),
        ("breast_cancer", (456, 113), 30, ("malignant", "benign")),
    ],
)
def test_tables(name, counts, features, classes):
    data = load(DataConfig(name=name))
    assert (len(data.train), len(data.eval)) == counts
    assert data.input_shape == (features,) and data.class_names == classes
    assert data.num_classes == (len(classes) or None)
    columns = data.train.arrays()
    assert columns["inputs"].dtype == np.float32
    assert columns["targets"].dtype == (np.int32 if classes else np.float32)
    np.testing.assert_allclose(data.std, columns["inputs"].std(0, dtype=np.float64), rtol=1e-5)


def test_table_split_follows_the_documented_rule():
    import hashlib

    lines = (FOLDER / "diabetes.csv").read_text().splitlines()[1:]
    order = sorted(range(442), key=lambda i: hashlib.sha256(f"diabetes:{i}".encode()).digest())
    expected = np.array([[float(v) for v in lines[i].split(",")] for i in sorted(order[:88])])
    test = load(DataConfig(name="diabetes")).eval.arrays()
    np.testing.assert_allclose(test["inputs"], expected[:, :-1], rtol=1e-6)
    np.testing.assert_allclose(test["targets"], expected[:, -1], rtol=1e-6)


def test_cancer_split_is_stratified():
    data = load(DataConfig(name="breast_cancer"))
    assert np.bincount(data.eval.arrays()["targets"]).tolist() == [42, 71]
    assert np.bincount(data.train.arrays()["targets"]).tolist() == [170, 286]


def table(filename: str) -> list[dict[str, str]]:
    """The rows of an embedded file of texts, by a reader of its own."""
    with lzma.open(FOLDER / filename, "rt", encoding="utf-8", newline="\n") as stream:
        names, *rows = [line.rstrip("\n").split("\t") for line in stream]
    return [dict(zip(names, row, strict=True)) for row in rows]


def column(name: str, split: str, wanted: records.Wanted) -> list:
    """A column of an embedded set as it was prepared."""
    prepared, (found,) = records.open_columns(prepare(name), wanted)
    reader = records.RecordReader(prepared, split)
    return reader.read(range(len(reader)))[found].tolist()


def check_apart(groups: dict[str, list]) -> None:
    """No group is in two splits."""
    for one, other in combinations(groups, 2):
        assert not {*groups[one]} & {*groups[other]}, (one, other)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("bible", {"train": 27_151, "valid": 1_057, "test": 1_913, "verses": 30_121}),
        ("bible_cloze", {"train": 19_653, "valid": 805, "test": 1_482}),
        ("vader", {"train": 10_464, "test": 2_593, "nyt": 2_970, "tweets": 3_432}),
        ("intents", {"train": 16_113, "valid": 1_502, "test": 2_385}),
        ("debian_synopsis", {"train": 18_000, "valid": 1_000, "test": 1_000}),
        ("japanese_vowels", {"train": 270, "test": 370}),
    ],
)
def test_splits_have_the_documented_rows(name, counts):
    prepared, _ = records.open_columns(prepare(name))
    assert {split: info.num_examples for split, info in prepared.info.splits.items()} == counts
    readme = (FOLDER / "README.md").read_text().partition("## Splits")[2]
    (row,) = re.findall(rf"^- `{name}`:.*(?:\n  .*)*", readme, re.MULTILINE)
    told = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d", row)}
    assert {count for split, count in counts.items() if split != "verses"} <= told


@pytest.mark.parametrize(
    ("name", "feature"), [("bible", "book"), ("bible_cloze", "title")], ids=["bible", "cloze"]
)
def test_whole_books_are_held_out(name, feature):
    wanted = records.Wanted("text", feature)
    books = {split: column(name, split, wanted) for split in ("train", "valid", "test")}
    check_apart(books)
    assert {*books["test"]} == {"Ruth", "Esth", "Eccl", "Dan", "Jonah", "John", "Phil", "Jas"}
    assert {*books["valid"]} == {"Judg", "Hos", "2Cor"}
    assert set().union(*books.values()) == {row["book"] for row in table("bible_en_es.tsv.xz")}


def test_whole_templates_are_held_out():
    # Features of other kinds than text are read by TFDS itself.
    source: Any = tfds.builder_from_directory(prepare("intents")).as_data_source()
    splits = ("train", "valid", "test")
    templates = {split: [int(row["template"]) for row in source[split]] for split in splits}
    check_apart(templates)
    assert all(len({*rows}) > 10 for rows in templates.values())


def test_whole_sources_are_held_out():
    source = {row["package"]: row["source"] for row in table("debian_synopsis.tsv.xz")}
    assert len(source) == 20_000
    wanted = records.Wanted("text", "package")
    packages = {
        split: column("debian_synopsis", split, wanted) for split in ("train", "valid", "test")
    }
    check_apart({split: [source[name] for name in rows] for split, rows in packages.items()})


def test_whole_reviews_are_held_out():
    rows = table("vader_sentiment.tsv.xz")
    texts = {
        split: Counter(column("vader", split, records.Wanted("text", "text")))
        for split in ("train", "test")
    }
    rows = [row for row in rows if row["source"] in ("movie", "amazon")]
    rows = [row for row in rows if abs(float(row["rating"])) >= 0.5]
    assert Counter(row["text"] for row in rows) == texts["train"] + texts["test"]
    # A sentence that two reviews have says nothing on where each of them is.
    often = {text for text, count in Counter(row["text"] for row in rows).items() if count > 1}
    alone = [row for row in rows if row["text"] not in often]
    groups = {
        split: [row["group"] for row in alone if row["text"] in found]
        for split, found in texts.items()
    }
    check_apart(groups)
    assert 0 < len(rows) - len(alone) < 100
    amazon = {split: {g for g in rows if g.startswith("amazon")} for split, rows in groups.items()}
    assert 0.1 < len(amazon["test"]) / len({*amazon["test"], *amazon["train"]}) < 0.3


def test_every_file_has_its_digest():
    from train.data.builders import BUILDERS

    files = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert files - {"README.md", "__init__.py"} == set(SHA256)
    assert tuple(BUILDERS) == NAMES
    readme = (FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in (*SHA256, *NAMES))


def test_a_corrupt_file_is_named(tmp_path, monkeypatch):
    content = bytearray((FOLDER / "diabetes.csv").read_bytes())
    content[1000] ^= 1
    (tmp_path / "diabetes.csv").write_bytes(content)
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
    with pytest.raises(UserError, match=r"diabetes\.csv is corrupt: its SHA-256") as caught:
        load(DataConfig(name="diabetes"))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "home").rglob("*.array_record*"))
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be read"):
        load(DataConfig(name="diabetes"))


def test_corrupt_records_are_named_and_mended_by_deleting(tmp_path, monkeypatch):
    import shutil

    from tests.train.data.folders import flip_bytes

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    load(DataConfig(name="diabetes"))
    folder = tmp_path / "diabetes" / VERSION
    flip_bytes(folder / "diabetes-train.array_record-00000-of-00001", 0.0, 0.2)
    with pytest.raises(UserError, match=r"delete .* then the next run writes it again"):
        load(DataConfig(name="diabetes"))
    shutil.rmtree(folder)
    assert len(load(DataConfig(name="diabetes")).train) == 354


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file" / "sets"))
    with pytest.raises(UserError, match=r"cannot be written .*set TFDS_DATA_DIR") as caught:
        load(DataConfig(name="diabetes"))
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from train.data import *; from train.errors import UserError\n"
        "try: load(DataConfig())\n"
        "except UserError as error: print(error)\n"
    )
    out, err = start(code, tmp_path).communicate()
    assert "cannot be written" in out and "TFDS_DATA_DIR" in out and out.count("\n") == 1, err
    assert not list((tmp_path / "mnist_5k").iterdir())


def test_two_processes_prepare_at_once(tmp_path):
    code = "from train.data import *; print(len(load(DataConfig(name='breast_cancer')).train))"
    ended = [process.communicate() for process in [start(code, tmp_path) for _ in range(2)]]
    assert [out for out, _ in ended] == ["456\n", "456\n"]  # nothing else on standard output
    assert sum(err.count("preparing breast_cancer") for _, err in ended) == 1, ended


def test_a_killed_preparation_is_begun_again(tmp_path):
    slow = (
        "import time; from train.data import prepare; from train.data.builders import numbers\n"
        "def rows(self, columns, rows):\n"
        "    yield 0, {name: column[0] for name, column in columns.items()}; time.sleep(60)\n"
        "numbers.Diabetes._generate_examples = rows; prepare.prepare('diabetes')\n"
    )
    process = start(slow, tmp_path)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("diabetes/*incomplete*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob("diabetes/*incomplete*")), "killed before it began to write"
    out, err = start(
        "from train.data import *; print(len(load(DataConfig(name='diabetes')).train))", tmp_path
    ).communicate()
    assert out == "354\n", err
    assert not list(tmp_path.glob("diabetes/*incomplete*"))


def test_importing_the_package_is_cheap(tmp_path):
    heavy = "{'jax', 'grain', 'tensorflow_datasets', 'tensorflow', 'PIL'}"
    code = (
        "import sys, train.data; from train.data import DataConfig, AugmentConfig; "
        f"DataConfig(); AugmentConfig(); print(sorted({heavy} & set(sys.modules)))"
    )
    assert start(code, tmp_path).communicate()[0] == "[]\n"


def test_loading_never_imports_tensorflow(tmp_path):
    code = "import sys; from train.data import *; load(DataConfig(name='diabetes'))\n"
    out, err = start(code + "print('tensorflow' in sys.modules)", tmp_path).communicate()
    assert out == "False\n" and "TensorFlow" not in err
