"""Cleaning: what is found, counted, dropped and repaired, against plain numpy."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.train.data.folders import F, write_set
from train.data import DataConfig, LabelledTextConfig, clean, load
from train.data.dataset import Cleaning
from train.data.labelled_text import load_labelled_text
from train.errors import UserError

X = F.Tensor(shape=(2,), dtype=np.float32)
LABEL = F.ClassLabel(num_classes=4)


def rows(*pairs):
    return [{"x": np.array(x, np.float32), "y": y} for x, y in pairs]


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    train = rows(
        ([1, 2], 0),
        ([1, 2], 0),  # a repeat
        ([1, 2], 1),  # another target: kept
        ([3, 4], 2),
        ([5, 6], 3),  # in the eval split
        ([5, 6], 0),  # in the eval split, whatever the target says
        ([3, 4], 2),  # a repeat
    )
    test = rows(([5, 6], 3), ([7, 8], 1), ([7, 8], 1))
    root = tmp_path_factory.mktemp("repeated")
    return write_set(root, {"x": X, "y": LABEL}, {"train": train, "test": test})


def test_repeated_rows_are_removed_and_counted(repeated):
    data = load(DataConfig(data_dir=repeated))
    assert data.cleaning == Cleaning(
        train_rows=7, eval_rows=3, train_duplicates=2, train_in_eval=2, eval_duplicates=1
    )
    np.testing.assert_array_equal(data.train.arrays()["inputs"], [[1, 2], [1, 2], [3, 4]])
    np.testing.assert_array_equal(data.train.arrays()["targets"], [0, 1, 2])
    assert len(data.eval) == 3 and data.cleaning.eval_duplicates == 1


def test_deduplication_can_be_switched_off(repeated):
    data = load(DataConfig(data_dir=repeated, deduplicate=False))
    assert len(data.train) == 7
    assert data.cleaning == Cleaning(train_rows=7, eval_rows=3)


def test_statistics_are_those_of_the_cleaned_train_split(repeated):
    data = load(DataConfig(data_dir=repeated))
    np.testing.assert_allclose(data.mean, [5 / 3, 8 / 3], rtol=1e-6)


def test_nothing_left_is_an_error(repeated):
    with pytest.raises(UserError, match=r"none is left after cleaning .*train_in_eval 7"):
        load(DataConfig(data_dir=repeated, eval_split="train"))


def test_a_source_may_not_hold_the_rows_that_another_is_measured_on(tmp_path):
    def write(name, train, test):
        write_set(tmp_path, {"x": X, "y": LABEL}, {"train": train, "test": test}, name=name)

    write("one", rows(([1, 1], 0), ([2, 2], 1)), rows(([9, 9], 2)))
    write("two", rows(([9, 9], 2), ([1, 1], 0), ([3, 3], 3)), rows(([8, 8], 2)))
    data = load(DataConfig(name="tfds:one+tfds:two", data_dir=tmp_path))
    assert data.name == "tfds:one+tfds:two"
    assert data.cleaning.train_in_eval == 1 and data.cleaning.train_duplicates == 1
    np.testing.assert_array_equal(data.train.arrays()["inputs"][:, 0], [1, 2, 3])
    np.testing.assert_array_equal(data.eval.arrays()["inputs"][:, 0], [9, 8])


def test_sources_that_differ_cannot_be_joined(tmp_path):
    split = {"train": rows(([1, 1], 0), ([2, 2], 1)), "test": rows(([9, 9], 2))}
    write_set(tmp_path, {"x": X, "y": LABEL}, split, name="one")
    write_set(tmp_path, {"x": X, "y": F.ClassLabel(num_classes=5)}, split, name="classes")
    pair = F.Tensor(shape=(1, 2), dtype=np.float32)
    wide = {k: [{**row, "x": row["x"][None]} for row in v] for k, v in split.items()}
    write_set(tmp_path, {"x": pair, "y": LABEL}, wide, name="shape")
    for other, what in (("classes", "class names"), ("shape", "input shapes")):
        with pytest.raises(UserError, match=f"cannot be joined: their {what} must agree"):
            load(DataConfig(name=f"tfds:one+tfds:{other}", data_dir=tmp_path))
    with pytest.raises(UserError, match="is one prepared set, but"):
        load(DataConfig(name="tfds:one+tfds:two", data_dir=tmp_path / "one/1.0.0"))


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 4)),
        elements=st.one_of(st.floats(-100, 100, width=32), st.just(float("nan"))),
    )
)
def test_repair_equals_numpy_medians(table):
    original, other = table.copy(), np.full((2, table.shape[1]), np.nan, np.float32)
    if np.isnan(table).all(0).any():
        with pytest.raises(UserError, match="missing in every row"):
            clean.repair(table, [other], [], "set")
        return
    filled = clean.repair(table, [other], [], "set")
    expected = np.nanmedian(original, axis=0)
    assert filled == np.isnan(original).sum() + other.size
    np.testing.assert_array_equal(table, np.where(np.isnan(original), expected, original))
    np.testing.assert_array_equal(other, np.broadcast_to(expected, other.shape))


def test_categories_are_repaired_by_the_most_frequent():
    table = np.array([[2, 1], [2, 3], [0, 5], [np.nan, 7]], np.float32)
    assert clean.repair(table, [], [0], "set") == 1
    assert table[3, 0] == 2  # the median of 2, 2, 0 too, but not of the next
    table = np.array([[0], [0], [0], [2], [2], [3], [3], [np.nan]], np.float32)
    clean.repair(table, [], [0], "set")
    assert table[-1, 0] == 0  # the median is 2


def test_targets_are_never_invented():
    columns = {
        "inputs": np.array([[1], [np.nan], [3], [4]], np.float32),
        "targets": np.array([np.nan, 1, 2, np.inf], np.float32),
    }
    kept, missing, malformed = clean.treat_faults(columns, None, "repair", "set")
    assert (missing, malformed) == (1, 1)
    np.testing.assert_array_equal(kept["targets"], [1, 2])
    kept, missing, malformed = clean.treat_faults(columns, None, "drop", "set")
    assert (missing, malformed) == (2, 1)
    np.testing.assert_array_equal(kept["targets"], [2])


def test_infinite_values_are_described():
    columns = {"inputs": np.array([[1], [-np.inf]], np.float32), "targets": np.array([0, 1])}
    with pytest.raises(UserError, match="row 1 has infinite values, as 1 of 2 rows have"):
        clean.treat_faults(columns, 2, "error", "set")


def test_the_advice_is_one_that_the_set_can_follow(tmp_path):
    train, test = rows(([1, 2], 0)), rows(([3, 4], -1))
    table = write_set(tmp_path, {"x": X, "y": LABEL}, {"train": train, "test": test}, name="table")
    with pytest.raises(UserError, match=r"row 0 has label -1 .* use --data\.missing drop$"):
        load(DataConfig(data_dir=table))
    # Texts have no such field: the set must be mended, or another of its splits be read.
    labelled = [{"text": "good", "label": 0}, {"text": "bad", "label": -1}]
    texts = write_set(
        tmp_path,
        {"text": F.Text(), "label": F.ClassLabel(num_classes=2)},
        {"train": labelled[:1], "test": labelled, "validation": labelled[:1]},
        name="texts",
    )
    config = LabelledTextConfig(name="tfds:texts", data_dir=texts, deduplicate=False)
    says = r"row 1 has label -1 .* mend the set, or choose another split with .*--data\.eval-split$"
    with pytest.raises(UserError, match=says):
        load_labelled_text(config)
    assert not hasattr(config, "missing")
    assert len(load_labelled_text(dataclasses.replace(config, eval_split="validation")).eval) == 1
