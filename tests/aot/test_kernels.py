"""Every kernel of the table compiles for every chip of its platform, and is what was promised.

`make test-aot` installs the compilers and runs this. It shows that the vendor's compiler accepts
the program and what memory it takes; it measures no speed.
"""

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.aot.cases import CASES, Case
from tests.aot.compilers import marks
from tests.conftest import ROOT
from train.targets import SMALLEST, target

pytestmark = pytest.mark.aot

CUSTOM_CALL = {
    "cudnn": "__cudnn$fmhaSoftmax",
    "gpu": "__cudnn$fmhaSoftmax",
    "pallas_gpu": "__gpu$xla.gpu.triton",
    "pallas_tpu": "tpu_custom_call",
}


@functools.cache
def compiled(name: str) -> dict[str, dict[str, Any]]:
    """All programs of a target, compiled by one process."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.aot.worker", name],
        env=os.environ | {"PYTHONPATH": path} | target(name).environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pairs():
    """Each target with each case of its platform."""
    for name in SMALLEST:
        # One process compiles all of a target.
        of_all = [pytest.mark.xdist_group(name), *marks(name)]
        for case in CASES:
            if case.is_for(name, target(name).platform):
                yield pytest.param(name, case, id=f"{name}-{case}", marks=of_all)


@pytest.mark.parametrize(("name", "case"), list(pairs()))
def test_compiles_to_its_kernel(name: str, case: Case):
    found = compiled(name)[str(case)]
    assert "error" not in found, found["error"]
    wanted = CUSTOM_CALL[case.backend]
    calls = [call for call in found["custom_calls"] if wanted in call]
    for kernel in case.kernels.split():
        assert any(kernel in call for call in calls), f"no {kernel} in {found['custom_calls']}"
    assert found["temp_bytes"] <= case.temp_bytes
