"""`python -m tests.aot.worker TARGET 1`: all cases of a target, printed as JSON; 0 compiles all.

A process by itself, because what a target needs in the environment must be there before JAX starts;
`tests/aot/record.py` sees to that, and says what the number means.
"""

import json
import sys
import traceback
from typing import Any

from tests.aot import record
from tests.aot.cases import CASES, Case
from tests.aot.programs import compile_case
from train.targets import Target, target


def attempt(case: Case, chosen: Target, recorded: dict[str, Any]) -> dict[str, Any]:
    """What is found, or the error: one case that fails hides no other."""
    try:
        return compile_case(case, chosen, recorded)
    except Exception:
        return {"error": traceback.format_exc()}


def main(name: str, only_changed: str) -> None:
    chosen = target(name)
    recorded = record.read().get(name, {}) if int(only_changed) else {}
    found = {}
    for case in CASES:
        if case.is_for(chosen.chip, chosen.platform):
            known = {} if case.is_witness else recorded.get(str(case), {})
            found[str(case)] = attempt(case, chosen, known)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
