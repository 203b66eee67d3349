"""Training steps of large models, compiled for nodes and slices that need not be here.

    python -m benchmarks plan                   # all; writes benchmarks/results/plan.json
    python -m benchmarks plan gpt2-xl           # this one; the others' figures stay

Each is what a command of `python -m train plan` says. `tests/aot/test_plan.py` fails where one of
them takes other bytes than the file says; write it again where a change of them is meant.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import WorkerError
from benchmarks.record import RESULTS
from train.errors import UserError
from train.options import nearest
from train.result import write_json

FILE = RESULTS / "plan.json"
# Name -> what follows `python -m train plan`.
PLANS = {
    "gpt2-xl": "gpt2-xl --target h100x8",
    "bert-large": "bert-large --target v5e:4x4",
    "llama-70b": "llama-70b --target v5p:8x8x8",
    "gpt3-175b": "gpt3-175b --target v5p:8x8x8",
    "gpt3-175b-smallest": "gpt3-175b --target v5p:8x8x8 --smallest",
}


def write(names: Sequence[str], say: Callable[[str], None], path: Path = FILE) -> Path:
    """Compiles the named plans, or all, and writes the file again.

    Raises:
      UserError: an unknown plan, or a compiler that is not installed.
      WorkerError: a compiler broke down, or no slice holds a model.
    """
    for name in names:
        if name not in PLANS:
            raise UserError(nearest("plan", name, PLANS))
    plans = read(path) if path.exists() else {}
    for name in names or PLANS:
        found = compiled(PLANS[name], say)
        if not found["fits"]:
            raise WorkerError(f"python -m train plan {PLANS[name]}: it does not fit")
        plans[name] = {"command": f"python -m train plan {PLANS[name]}", **found}
        # As each is there: all of them take minutes.
        write_json(path, {name: plans[name] for name in PLANS if name in plans})
    return path


def compiled(words: str, say: Callable[[str], None]) -> dict[str, Any]:
    """What `python -m train plan` says of these words."""
    from train.plan import command

    name, *rest = words.split()
    options, fixed_batch = command.read(name, rest)
    try:
        return command.compiled(
            options, command.target_of(options.target), fixed_batch=fixed_batch, say=say
        )
    except command.PlanFailed as error:
        raise WorkerError(str(error)) from error


def read(path: Path = FILE) -> dict[str, dict[str, Any]]:
    """Plan -> what the file says of it."""
    return json.loads(path.read_text())
