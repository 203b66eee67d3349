"""Rows of unequal length: padding, buckets, and the batches made of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import eval_batches, train_batches
from train.data.sequences import (
    MAX_BUCKETS,
    MOST_PADDING,
    PADDING,
    Ragged,
    SequenceSource,
    make_buckets,
)

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"


def rows_of(lengths: list[int], width: int | None = None) -> Ragged:
    """Rows whose every value is the row's number plus one, so that padding shows."""
    shape = () if width is None else (width,)
    return Ragged([np.full((n, *shape), i + 1, np.int32) for i, n in enumerate(lengths)])


def source_of(*columns: list[int]) -> SequenceSource:
    named = {f"text{i}": rows_of(lengths) for i, lengths in enumerate(columns)}
    return SequenceSource({**named, "targets": np.arange(len(columns[0]))})


def test_rows_come_padded_with_zeros():
    column = rows_of([3, 0, 2], width=2)
    got = column.padded(np.array([2, 0, 1, 2]), 3)
    assert got.shape == (4, 3, 2)
    assert got[..., 0].tolist() == [[3, 3, 0], [1, 1, 1], [0, 0, 0], [3, 3, 0]]
    np.testing.assert_array_equal(column[2], [[3, 3], [3, 3]])
    assert len(column) == 3


def test_a_batch_says_how_long_its_rows_are():
    batch = source_of([3, 1, 2]).gather(np.array([1, 2]))
    assert batch["text0"].tolist() == [[2, 0, 0], [3, 3, 0]]  # as wide as the longest of all
    assert batch["text0_lengths"].tolist() == [1, 2]
    assert batch["text0_lengths"].dtype == np.int32
    assert batch["targets"].tolist() == [1, 2]
    assert source_of([3, 1]).gather(np.array([1]), {"text0": 1})["text0"].tolist() == [[2]]


def check_buckets(lengths: dict[str, np.ndarray], batch_size: int) -> float:
    """Every row is in one bucket, wide enough and no wider; the share of padding."""
    buckets = make_buckets(lengths, batch_size)
    assert len(buckets) <= MAX_BUCKETS
    rows = np.concatenate([bucket.rows for bucket in buckets])
    assert sorted(rows) == list(range(len(next(iter(lengths.values())))))
    for bucket in buckets:
        assert len(bucket.rows) >= batch_size
        assert bucket.steps == {name: c[bucket.rows].max() for name, c in lengths.items()}
    real = sum(column.sum() for column in lengths.values())
    return 1 - real / sum(len(b.rows) * sum(b.steps.values()) for b in buckets)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=4, max_size=60))
def test_buckets_hold_every_row_once(pairs):
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    one = 1 - (first.sum() + second.sum()) / (len(pairs) * (first.max() + second.max()))
    assert check_buckets({"a": first, "b": second}, batch_size=4) <= one + 1e-12


def test_little_is_padding():
    random = np.random.default_rng(0)
    source = np.minimum(np.exp(random.normal(3.2, 0.6, 5000)).astype(int) + 1, 128)
    target = np.maximum(1, (source * random.normal(1.1, 0.15, 5000)).astype(int))
    assert check_buckets({"source": source}, 64) < 0.15
    assert check_buckets({"source": source, "target": target}, 64) < 0.15
    assert check_buckets({"same": np.full(100, 7)}, 8) == 0
    assert PADDING < MOST_PADDING == 0.15


def test_much_padding_is_told(capsys):
    lengths = {"text": np.array([1] * 9 + [30])}
    assert check_buckets(lengths, 4) > MOST_PADDING  # the longest row has three others beside it
    out, said = capsys.readouterr()
    assert out == "" and said.count("\n") == 1
    assert "87% of the batches is padding, more than 15%: the lengths of rows differ too" in said
    assert "1 of at most 12 buckets, of 4 rows or more each; a smaller --batch-size allows" in said
    assert check_buckets(lengths, 1) == 0
    assert capsys.readouterr() == ("", "")


def test_more_buckets_than_are_compiled_for_are_never_made(capsys):
    lengths = {"a": np.repeat([1, 100], 40), "b": np.tile(np.arange(1, 41) ** 2, 2)}
    lengths["c"] = np.random.default_rng(0).permutation(lengths["b"])
    lengths["d"] = np.random.default_rng(1).permutation(lengths["b"])
    assert check_buckets(lengths, 1) > MOST_PADDING
    said = capsys.readouterr().err
    assert said.endswith("for 12 of at most 12 buckets, of 1 rows or more each\n")


def test_recorded_runs_have_little_padding():
    results = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    shares = {
        result["recipe"]: result["padding_fraction"]
        for result in results
        if result.get("padding_fraction") is not None
    }
    assert {"vowels-lstm", "sentiment-lstm", "translate-en-es", "synopsis"} <= shares.keys()
    assert {name: share for name, share in shares.items() if share >= MOST_PADDING} == {}


def test_the_shapes_are_known_before_the_first_batch():
    source = source_of([2] * 40 + [9] * 40 + [30] * 20)
    batches = train_batches(source, batch_size=10, seed=0)
    shapes = {batch["text0"].shape for batch in batches.examples()}
    assert shapes == {(10, 2), (10, 9), (10, 30)}
    seen = [next(batches) for _ in range(30)]
    assert {batch["text0"].shape for batch in seen} == shapes
    real = sum(batch["text0_lengths"].sum() for batch in seen)
    assert real == sum(batch["text0"].size for batch in seen)  # three lengths: no padding at all
    assert batches.padding == pytest.approx(0)


def test_an_epoch_has_every_row_once_where_buckets_are_whole_batches():
    batches = train_batches(source_of([2] * 40 + [9] * 60), batch_size=10, seed=3)
    epochs = [
        np.concatenate([next(batches)["targets"] for _ in range(10)]).tolist() for _ in range(3)
    ]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_no_row_falls_behind_where_they_are_not():
    batches = train_batches(source_of([2] * 33 + [9] * 50 + [20] * 17), batch_size=8, seed=0)
    times = np.zeros(100, int)
    for _ in range(600):
        np.add.at(times, next(batches)["targets"], 1)
    for rows in (slice(0, 33), slice(33, 83), slice(83, 100)):  # even within a bucket
        assert times[rows].max() - times[rows].min() <= 1
    assert times.min() > 0.6 * times.mean()  # and nearly so between them


def test_the_padding_told_is_that_of_the_batches():
    random = np.random.default_rng(1)
    batches = train_batches(source_of(random.integers(1, 40, 640).tolist()), batch_size=8, seed=0)
    cells = real = 0
    for _ in range(80):  # an epoch
        batch = next(batches)
        cells, real = cells + batch["text0"].size, real + batch["text0_lengths"].sum()
    assert batches.padding == pytest.approx(1 - real / cells, abs=0.01)
    assert 1 - real / cells < 0.15


def test_a_restored_position_goes_on_identically():
    def fresh():
        return train_batches(source_of([2] * 30 + [9] * 30), batch_size=6, seed=5)

    batches = fresh()
    for _ in range(13):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    expected = [next(batches) for _ in range(12)]
    again = fresh()
    again.set_state(state)
    np.testing.assert_equal([next(again) for _ in range(12)], expected)


def test_processes_share_every_batch():
    source = source_of([2] * 32 + [9] * 32)
    whole = train_batches(source, batch_size=8, seed=1)
    parts = [
        train_batches(source, batch_size=8, seed=1, positions=positions)
        for positions in np.split(np.arange(8), 2)
    ]
    for _ in range(16):
        got = [next(part) for part in parts]
        joined = {name: np.concatenate([part[name] for part in got]) for name in got[0]}
        np.testing.assert_equal(joined, next(whole))


def test_held_out_rows_have_one_shape():
    batches = list(eval_batches(source_of([1, 5, 3]), batch_size=2))
    assert [batch["text0"].shape for batch in batches] == [(2, 5), (2, 5)]
    assert batches[1]["mask"].tolist() == [True, False]
