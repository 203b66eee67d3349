"""Input pipelines that need no TensorFlow: shuffled batches of an image set that fits in memory.

The value of an epoch is a sum over all its rows: the same in any order, and another one as soon as
a row is missing or comes twice.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.entry import OURS, Arrays, Competitor, Entry

BATCH = 64


def prepare(quick: bool) -> dict[str, np.ndarray]:
    """Random images and labels, a whole number of batches."""
    rng = np.random.default_rng(0)
    count = BATCH * (4 if quick else 64)
    return {
        "inputs": rng.integers(0, 256, (count, 28, 28, 1), np.uint8),
        "targets": rng.integers(0, 10, count, np.int32),
    }


class Epochs:
    """Takes one epoch's batches from an endless iterator of (inputs, targets) at each advance."""

    def __init__(self, arrays: Arrays, batches: Callable[[Arrays], Iterator[Any]]):
        self.batches = batches(arrays)
        self.per_epoch = len(arrays["targets"]) // BATCH

    def advance(self) -> list[float]:
        """One epoch."""
        total = 0
        for _ in range(self.per_epoch):
            inputs, targets = (np.asarray(part) for part in next(self.batches))
            total += int(targets.sum()) + int(inputs[:, 14, 14].sum(dtype=np.int64))
        return [float(total)]


def _ours(arrays: Arrays) -> Iterator[Any]:
    from train.data import to_device, train_batches
    from train.data.dataset import ArraySource

    for batch in to_device(train_batches(ArraySource(arrays), batch_size=BATCH, seed=0)):
        yield batch["inputs"], batch["targets"]


def _torch(arrays: Arrays, *, whole_batches: bool) -> Iterator[Any]:
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    columns = TensorDataset(*(torch.from_numpy(arrays[n]) for n in ("inputs", "targets")))
    if whole_batches:
        sampler = BatchSampler(RandomSampler(columns), BATCH, drop_last=False)
        loader = DataLoader(columns, sampler=sampler, batch_size=None)
    else:
        loader = DataLoader(columns, batch_size=BATCH, shuffle=True)
    while True:
        yield from loader


def _grain(arrays: Arrays) -> Iterator[Any]:
    import grain

    rows = list(zip(arrays["inputs"], arrays["targets"], strict=True))
    dataset = grain.MapDataset.source(rows).seed(0).shuffle().repeat().batch(BATCH)
    yield from dataset.to_iter_dataset()


def _competitor(
    batches: Callable[[Arrays], Iterator[Any]], what: str, *requires: str
) -> Competitor:
    return Competitor(build=lambda a: Epochs(a, batches), what=what, requires=requires)


ENTRY = Entry(
    name="pipeline",
    summary="An epoch of 64 shuffled batches of 64 images, 28x28x1 bytes, from memory.",
    unit="epoch",
    prepare=prepare,
    competitors={
        OURS: _competitor(_ours, "train.data"),
        "torch": _competitor(
            lambda a: _torch(a, whole_batches=False), "DataLoader, row by row", "torch"
        ),
        "torch batches": _competitor(
            lambda a: _torch(a, whole_batches=True), "DataLoader, BatchSampler as sampler", "torch"
        ),
        "grain": _competitor(_grain, "MapDataset, row by row"),
    },
    timed_per_turn=3,
    tolerance=0.0,
)
