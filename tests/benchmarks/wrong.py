"""A benchmark with a competitor that does other work than ours."""

import dataclasses

from benchmarks.entry import OURS, Competitor
from tests.benchmarks.tiny import ENTRY as TINY
from tests.benchmarks.tiny import Sum

ENTRY = dataclasses.replace(
    TINY,
    competitors={
        OURS: Competitor(build=Sum),
        "cheat": Competitor(build=lambda arrays: Sum(arrays, factor=0.9)),
    },
    promises=(),
)
