"""What builders of embedded sets share: columns in, records out, without TensorFlow."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from train.data.embedded import VERSION

TEST_SHARE = 0.2


class Embedded(tfds.core.GeneratorBasedBuilder, skip_registration=True):
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


def train_and_test(test: np.ndarray) -> dict[str, np.ndarray]:
    return {"train": ~test, "test": test}


def ragged(rows: Sequence[Any]) -> np.ndarray:
    """Rows of unequal length as one column."""
    column = np.empty(len(rows), np.object_)
    column[:] = rows
    return column
