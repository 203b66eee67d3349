"""Every recipe's training step compiles, and takes the bytes that were recorded for it.

They are in `benchmarks/results/aot.json`. Where a change of them is meant, write the file again:
`python -m benchmarks aot RECIPE`.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.aot import TARGETS, Found, compiled, read
from tests.aot.compilers import marks
from train.recipes import RECIPES

pytestmark = [pytest.mark.aot, pytest.mark.timeout(1800)]


@functools.cache
def steps() -> dict[str, dict[str, Found]]:
    """Target -> recipe -> its step, compiled by one process a target, side by side."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda chip: dict(compiled(chip, RECIPES, only_changed=True)), TARGETS)
        return dict(zip(TARGETS, found, strict=True))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("chip", [pytest.param(chip, marks=marks(chip)) for chip in TARGETS])
def test_takes_the_recorded_bytes(chip, name):
    found, recorded = steps()[chip][name], read()[name]
    assert "error" not in found, found["error"]
    assert found["batch"] == recorded["batch"]
    assert found["bytes"] == pytest.approx(recorded[chip]["bytes"], rel=0.1)


def test_every_recipe_is_recorded():
    assert list(read()) == list(RECIPES)
