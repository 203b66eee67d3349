"""Every kernel of the table compiles for every chip of its platform, and is what was promised.

`make test-aot` installs the compilers and runs this. It shows that the vendor's compiler accepts
the program and what memory it takes; it measures no speed. Programs that the compilers have seen
before are not compiled again: `record.py` keeps what they became, and writes it anew.
"""

import functools

import pytest

from tests.aot import record
from tests.aot.cases import CASES, Case
from tests.aot.compilers import marks
from train.targets import SMALLEST, target

pytestmark = pytest.mark.aot


@functools.cache
def compiled(name: str) -> record.Entries:
    return record.compiled(name, only_changed=True)


def pairs():
    """Each target with each case of its platform."""
    for name in SMALLEST:
        for case in CASES:
            if case.is_for(name, target(name).platform):
                yield pytest.param(name, case, id=f"{name}-{case}", marks=marks(name))


@pytest.mark.parametrize(("name", "case"), list(pairs()))
def test_compiles_to_its_kernel(name: str, case: Case):
    found, recorded = compiled(name)[str(case)], record.read()[name].get(str(case))
    assert "error" not in found, found["error"]
    assert found["kernels"] == case.kernels.split()
    assert found["temp_bytes"] <= case.temp_bytes
    if case.is_witness and recorded and recorded["program"] == found["program"]:
        assert found == recorded  # so that the record of the other shapes may be believed
