"""The statistics against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import stats

TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


@settings(deadline=None)
@given(times=TIMES, q=st.floats(0, 100))
def test_percentile(times, q):
    assert stats.percentile(times, q) == pytest.approx(np.percentile(times, q))


@settings(deadline=None)
@given(times=TIMES)
def test_summary(times):
    summary = stats.summarize(times)
    want = np.percentile(times, [50.0, 10.0, 90.0])
    assert [summary.median, summary.p10, summary.p90] == pytest.approx(want)
    assert summary.count == len(times)


@settings(deadline=None)
@given(ratios=st.lists(st.floats(0.1, 10), min_size=1, max_size=10))
def test_geometric_mean(ratios):
    assert stats.geometric_mean(ratios) == pytest.approx(np.exp(np.mean(np.log(ratios))))


def test_ratios_are_taken_round_by_round():
    """A round in which everything is ten times slower leaves the ratio as it is."""
    ours, other = [[1.0, 1.0], [10.0, 10.0]], [[2.0, 2.0], [20.0, 20.0]]
    assert stats.ratios(ours, other) == stats.Summary(median=2.0, p10=2.0, p90=2.0, count=2)


def test_no_values():
    with pytest.raises(ValueError, match="no values"):
        stats.percentile([], 50.0)


@pytest.mark.parametrize(
    "value, text",
    [(0.9964, "0.996"), (1.0049, "1.00"), (12.345, "12.35"), (432.1, "432"), (0.0, "0")],
)
def test_what_is_less_than_one_does_not_read_as_one(value, text):
    assert stats.short(value) == text
