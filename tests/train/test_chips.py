"""Published peaks of chips, and the slices that are on offer."""

import pytest

from train import chips
from train.chips import CHIPS
from train.targets import SMALLEST, Target, target


def test_every_target_is_published():
    assert list(CHIPS) == list(SMALLEST)


@pytest.mark.parametrize("name", CHIPS)
def test_slices_grow(name):
    """From the smallest to the largest, in the form that a target takes."""
    slices = [Target(name, shape) for shape in CHIPS[name].slices]
    assert [target(str(each)) for each in slices] == slices
    counts = [chips.count(each) for each in slices]
    assert counts == sorted(set(counts))
    assert Target(name, SMALLEST[name]) in slices


def test_devices():
    assert chips.count(target("h100x8")) == 8
    assert chips.count(target("v5p:8x8x8")) == 512
    assert chips.count(target("tpu7x:2x2x1")) == 8  # two a chip


def test_larger_slices():
    assert [str(each) for each in chips.larger(target("v5e:4x8"), 32)] == [
        "v5e:8x8",
        "v5e:8x16",
        "v5e:16x16",
    ]
    assert chips.larger(target("h100x8"), 8) == []


def test_usable_memory(monkeypatch):
    """Of a GPU what JAX takes of it; a device of a tpu7x is half a chip."""
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert chips.usable_bytes(target("h100x8")) == 60e9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert chips.usable_bytes(target("h100x8")) == 72e9
    assert chips.usable_bytes(target("v5e:4x4")) == 16e9
    assert chips.usable_bytes(target("tpu7x")) == 96 * 2**30
