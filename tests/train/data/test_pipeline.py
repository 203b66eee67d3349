"""Order, shards, positions, padding, mixtures, prefetch: the promises of the input pipeline."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import DataConfig, eval_batches, load, to_device, train_batches
from train.data.dataset import ArraySource, MixedSource, Source
from train.data.tables import EpochOrder
from train.errors import UserError


def numbered(count: int, first: int = 0) -> ArraySource:
    """Rows that know their own number."""
    numbers = np.arange(first, first + count)
    return ArraySource({"inputs": numbers[:, None].astype(np.float32), "targets": numbers})


def take(iterator, count: int) -> list[list[int]]:
    return [np.asarray(next(iterator)["targets"]).tolist() for _ in range(count)]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_every_epoch_is_another_permutation():
    rows = flat(take(train_batches(numbered(60), batch_size=12, seed=3), 15))
    epochs = [rows[i : i + 60] for i in (0, 60, 120)]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(range(60))


def test_nothing_is_dropped_where_epochs_meet():
    rows = flat(take(train_batches(numbered(10), batch_size=4, seed=0), 5))
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))


def test_the_order_depends_on_the_seed_alone():
    first, again, other = (
        take(train_batches(numbered(50), batch_size=8, seed=seed), 20) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_order_is_the_same_in_every_version():
    order = EpochOrder(numbered(12), seed=7)
    assert order.rows(0, 12).tolist() == [2, 10, 5, 7, 8, 1, 11, 9, 3, 4, 0, 6]


@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [2, 3, 6, 7], [5]])
def test_reading_in_blocks_changes_no_batch(positions):
    rows = np.arange(50)
    wide = np.repeat(rows[:, None], 2000, axis=1)  # 16 kB a row: four batches of four a block
    source = ArraySource({"inputs": wide, "targets": rows})
    batches = train_batches(source, batch_size=8, seed=5, positions=np.array(positions))
    order = EpochOrder(source, 5)
    for step in range(30):
        mine = order.rows(8 * step, 8 * step + 8)[positions]
        np.testing.assert_equal(next(batches), {"inputs": wide[mine], "targets": mine})


def test_a_batch_of_all_rows_leaves_them_as_they_are():
    whole = take(train_batches(numbered(6), batch_size=6, seed=0), 3)
    assert whole == [list(range(6))] * 3
    mixed = MixedSource([numbered(3), numbered(3, 3)], (1.0, 2.0))  # has proportions to keep
    assert take(train_batches(mixed, batch_size=6, seed=0), 1) != [list(range(6))]


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(1, 40),
    each=st.integers(1, 5),
    count=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_parts_of_a_batch_are_that_batch(size, each, count, seed):
    batch_size = each * count
    if batch_size > size:
        return
    steps = -(-size // batch_size)
    whole = take(train_batches(numbered(size), batch_size=batch_size, seed=seed), steps)
    parts = [
        take(
            train_batches(numbered(size), batch_size=batch_size, seed=seed, positions=positions),
            steps,
        )
        for positions in np.split(np.arange(batch_size), count)
    ]
    for step in range(steps):
        assert [len(part[step]) for part in parts] == [each] * count
        assert flat([part[step] for part in parts]) == whole[step]
    assert set(flat(whole)) == set(range(size))
    assert len(set(flat(whole)[:size])) == size


def put(batch):
    """Without it `to_device` has nothing to do on a CPU."""
    return jax.device_put(batch, jax.devices()[0])


@pytest.mark.parametrize("on_device", [False, True])
def test_a_restored_position_goes_on_identically(on_device):
    def fresh():
        batches = train_batches(numbered(37), batch_size=5, seed=4)
        return to_device(batches, put=put) if on_device else batches

    iterator = fresh()
    take(iterator, 11)
    state = json.loads(json.dumps(iterator.get_state()))
    assert state["next_batch"] == 11  # delivered ones, however many are prefetched
    expected = take(iterator, 20)
    restored = fresh()
    restored.set_state(state)
    assert restored.get_state() == state
    assert take(restored, 20) == expected
    iterator.set_state(state)  # backwards, with batches in flight
    assert take(iterator, 20) == expected


def test_a_position_before_the_first_batch():
    batches = train_batches(numbered(20), batch_size=5, seed=4)
    iterator = to_device(batches, put=put)
    state = iterator.get_state()
    expected = take(iterator, 3)
    iterator.set_state(state)
    assert state["next_batch"] == 0 and take(iterator, 3) == expected


@pytest.mark.parametrize("field", ["batch_size", "seed", "num_rows"])
def test_a_position_of_another_pipeline_is_refused(field):
    iterator = train_batches(numbered(20), batch_size=5, seed=4)
    state = {**iterator.get_state(), field: 10}
    with pytest.raises(UserError, match=f"belongs to {field}=10"):
        iterator.set_state(state)


def test_to_device_gives_device_arrays_and_reports_errors():
    batches = train_batches(numbered(20), batch_size=5, seed=4)
    batch = next(to_device(batches, put=put))
    assert all(isinstance(value, jax.Array) for value in batch.values())

    class Broken(ArraySource):
        def gather(self, indices):
            raise UserError("a damaged record")

    batches = train_batches(Broken(numbered(20).columns), batch_size=5, seed=0)
    iterator = to_device(batches, put=put)
    with pytest.raises(UserError, match="a damaged record"):
        next(iterator)


def test_where_the_host_is_the_device_nothing_moves():
    assert jax.default_backend() == "cpu"
    batches = train_batches(numbered(20), batch_size=5, seed=4)
    assert to_device(batches) is batches


def test_to_device_with_a_sharding():
    mesh = jax.make_mesh((1,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batches = train_batches(numbered(20), batch_size=5, seed=4)
    batch = next(to_device(batches, put=lambda rows: jax.device_put(rows, sharding)))
    assert batch["inputs"].sharding == sharding and batch["inputs"].shape == (5, 1)


def test_eval_batches_are_in_order_padded_and_masked():
    batches = list(eval_batches(numbered(10), batch_size=4))
    assert [batch["mask"].tolist() for batch in batches] == [
        [True] * 4,
        [True] * 4,
        [True] * 2 + [False] * 2,
    ]
    rows = np.concatenate([batch["targets"][batch["mask"]] for batch in batches])
    assert rows.tolist() == list(range(10))
    assert all(batch["inputs"].shape == (4, 1) for batch in batches)
    assert len(list(eval_batches(numbered(3), batch_size=8))) == 1


def test_parts_of_an_evaluation_cover_everything_once():
    parts = [
        list(eval_batches(numbered(10), batch_size=4, positions=np.array(positions)))
        for positions in ([0, 2], [1, 3])
    ]
    assert [len(part) for part in parts] == [3, 3]
    rows = [batch["targets"][batch["mask"]] for part in parts for batch in part]
    assert sorted(np.concatenate(rows).tolist()) == list(range(10))


def test_impossible_batches_are_refused():
    with pytest.raises(UserError, match="batch size 11 is larger than the train split of 10 rows"):
        train_batches(numbered(10), batch_size=11, seed=0)
    with pytest.raises(UserError, match="batch size 0 must be at least 1"):
        train_batches(numbered(10), batch_size=0, seed=0)
    with pytest.raises(UserError, match="batch size -1 must be at least 1"):
        eval_batches(numbered(10), batch_size=-1)
    with pytest.raises(UserError, match="seed=-1"):
        train_batches(numbered(10), batch_size=5, seed=-1)


def test_mixtures_hold_their_proportions():
    mixed = MixedSource([numbered(300), numbered(100, 1000)], (1.0, 3.0))
    rows = flat(take(train_batches(mixed, batch_size=40, seed=0), 30))
    for epoch in range(3):  # exact in every epoch
        assert sum(row >= 1000 for row in rows[400 * epoch : 400 * (epoch + 1)]) == 300
    # and no batch strays further than drawing with replacement would: 5 standard deviations
    counts = [sum(row >= 1000 for row in rows[i : i + 40]) for i in range(0, 1200, 40)]
    assert max(abs(count - 30) for count in counts) <= 5 * np.sqrt(40 * 0.75 * 0.25)
    assert len(set(counts)) > 1
    # the smaller source repeats evenly, the larger one goes on where it stopped
    small = [row for row in rows if row >= 1000]
    assert np.bincount(np.array(small) - 1000).tolist() == [9] * 100
    large = [row for row in rows if row < 1000]
    assert len(large) == 300 and sorted(large) == list(range(300))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.floats(0.01, 10)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_mixtures_use_rows_evenly(parts, seed):
    sources: list[Source] = [numbered(size, 100 * i) for i, (size, _) in enumerate(parts)]
    mixed = MixedSource(sources, [weight for _, weight in parts])
    total = len(mixed)
    rows = mixed.gather(EpochOrder(mixed, seed).rows(0, 4 * total))["targets"]
    weights = np.array([weight for _, weight in parts])
    for i, (size, weight) in enumerate(parts):
        mine = rows[(rows >= 100 * i) & (rows < 100 * i + size)]
        assert abs(len(mine) - 4 * total * weight / weights.sum()) <= 4
        times = np.bincount(mine - 100 * i, minlength=size)
        assert times.max() - times.min() <= 1


def test_without_weights_a_mixture_is_the_union():
    mixed = MixedSource([numbered(7), numbered(5, 7)])
    assert sorted(flat(take(train_batches(mixed, batch_size=4, seed=1), 3))) == list(range(12))
    np.testing.assert_array_equal(mixed.arrays()["targets"], np.arange(12))
    np.testing.assert_array_equal(mixed.gather(np.array([11, 0, 7]))["targets"], [11, 0, 7])


def test_configured_mixtures(tmp_path):
    data = load(DataConfig(name="mnist_5k+mnist_5k", weights=(1.0, 2.0), deduplicate=False))
    assert isinstance(data.train, MixedSource) and data.train.weights == (1.0, 2.0)
    assert len(data.train) == 8000 and len(data.eval) == 2000
    with pytest.raises(
        UserError, match=r"mnist_5k and diabetes cannot be joined: their class names must agree"
    ):
        load(DataConfig(name="mnist_5k+diabetes"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": (1.0, 2.0)}, "2 values for 1 sources"),
        ({"name": "a+b", "weights": (1.0, 0.0)}, "positive"),
        ({"name": "a++b"}, "empty part"),
        ({"resize": 0}, "at least 1"),
    ],
)
def test_wrong_configurations(wrong, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**wrong)


CODE = """
import hashlib
from train.data import DataConfig, load, to_device, train_batches
import numpy as np
batches = to_device(train_batches(load(DataConfig()).train, batch_size=64, seed=5))
digest = hashlib.sha256()
for _ in range(70):
    for value in next(batches).values():
        digest.update(np.asarray(value).tobytes())
print(digest.hexdigest())
"""


def test_batches_are_the_same_in_another_process():
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    digest = hashlib.sha256()
    batches = train_batches(load(DataConfig()).train, batch_size=64, seed=5)
    for _ in range(70):
        for value in next(batches).values():
            digest.update(value.tobytes())
    assert done.stdout.strip() == digest.hexdigest()
