"""`python -m tests.aot.worker TARGET`: compiles all cases of a target, and prints them as JSON.

A process by itself, because what a target needs in the environment must be there before JAX starts;
`tests/aot/test_kernels.py` sees to that.
"""

import json
import sys
import traceback
from typing import Any

from tests.aot.cases import CASES, Case
from tests.aot.programs import compile_case
from train.targets import Target, target


def attempt(case: Case, chosen: Target) -> dict[str, Any]:
    """The program as it is described, or the error: one case that fails hides no other."""
    try:
        return compile_case(case, chosen)
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    chosen = target(sys.argv[1])
    cases = [case for case in CASES if case.is_for(chosen.chip, chosen.platform)]
    found = {str(case): attempt(case, chosen) for case in cases}
    print(json.dumps(found))
