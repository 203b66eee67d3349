"""A benchmark with a competitor that cannot be built."""

import dataclasses

from benchmarks.entry import OURS, Competitor
from tests.benchmarks.tiny import ENTRY as TINY
from tests.benchmarks.tiny import Sum


def fail(arrays):
    """Stands for a library that does not work here."""
    raise RuntimeError("no such instruction on this processor")


ENTRY = dataclasses.replace(
    TINY,
    competitors={OURS: Competitor(build=Sum), "broken": Competitor(build=fail)},
    promises=(),
)
