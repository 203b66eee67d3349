"""`python -m train.plan`: the process with a target's compiler; `train.plan.command` starts it.

It reads a request as JSON and writes lines of JSON: `{"say": ...}` while it works, and at last
`{"plan": ...}`, or `{"error": ...}` where the request is mistaken.
"""

import json
import resource
import sys
from typing import Any

from train.config import from_json
from train.errors import UserError
from train.plan.presets import preset_recipe
from train.plan.search import Request, plan
from train.recipes import RECIPES
from train.result import versions
from train.targets import target


def main() -> None:
    asked = json.load(sys.stdin)
    name, chosen = asked["name"], asked["target"]
    base = RECIPES[name].load() if name in RECIPES else preset_recipe(name)
    request = Request(
        from_json(base, asked["recipe"]),
        target(chosen),
        asked["mesh"],
        asked["fixed_batch"],
        asked["smallest"],
    )
    try:
        found = plan(request, lambda text: write(say=text))
    except UserError as error:
        write(error=str(error))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        write(plan={**found, "peak_memory_bytes": peak, "versions": versions()})


def write(**line: Any) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
