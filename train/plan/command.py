"""`python -m train plan`: what is asked, and the process with the compiler that answers it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from train.chips import CHIPS
from train.config import Recipe, to_json
from train.errors import UserError
from train.options import nearest, parse
from train.plan.presets import preset_recipe
from train.plan.tables import show
from train.recipes import RECIPES
from train.targets import SMALLEST, Target, target
from zoo.registry import MODELS

PROG = "python -m train plan"
UNFIT = 3  # the exit code where it does not fit
ROOT = Path(__file__).resolve().parents[2]
ALIASES = {
    "--data": "--data.name",
    "--data-dir": "--data.data-dir",
    "--window": "--task.window",
    "--seq-len": "--task.window",
}
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


class PlanFailed(Exception):
    """The process that compiles ended before its work; the message is what it last said."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Compiles a training step for hardware that is not here: what it takes, and whether it fits.

    Every field of the recipe can be set.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field()
    target: str = ""
    """GPUs of a node or a slice of TPUs: h100x8, v5e:4x4, v5p:8x8x8, ..."""
    mesh: str | None = None
    """Devices along its axes, as data=8,fsdp=8,tensor=8 (default: a recipe's along data, as `run`
    has them, and a model's along fsdp, as many as divide its widths)."""
    smallest: Flag = False
    """Find the smallest slice of the chip that holds it, instead."""
    json: Flag = False
    """Print one JSON object on standard output, and nothing else there."""


def plan(args: Sequence[str]) -> int:
    """Runs the verb: 0 where it fits, 3 where it does not, 1 where its compiler breaks down."""
    if not args or args[0].startswith("-"):
        wanted = bool(args) and args[0] in ("-h", "--help")
        print(_help(), file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else 2
    options, fixed_batch = read(args[0], args[1:])
    try:
        found = compiled(
            options,
            target_of(options.target),
            fixed_batch=fixed_batch,
            say=lambda text: print(text, file=sys.stderr),
        )
    except PlanFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return 0 if found["fits"] else UNFIT


def read(name: str, args: Sequence[str]) -> tuple[Plan, bool]:
    """The options, and whether they say how large a batch is; that of a recipe is always its own.

    Raises:
      UserError: no such recipe or model, or a flag or value that is none.
    """
    if name in RECIPES:
        recipe = RECIPES[name].load()
    elif name in MODELS:
        recipe = preset_recipe(name)
    else:
        raise UserError(nearest("recipe or model", name, [*RECIPES, *MODELS]))
    words = []
    for arg in args:
        flag, equals, value = arg.partition("=") if arg.startswith("--") else (arg, "", "")
        words += [ALIASES.get(flag, flag), value] if equals else [ALIASES.get(flag, flag)]
    if "--task.window" in words and not hasattr(recipe.task, "window"):
        raise UserError(f"{name} learns from no windows of tokens; leave --window out")
    options = parse(Plan, f"{PROG} {name}", words, Plan(recipe=recipe))
    fixed = name in RECIPES or bool({"--batch-size", "--batch_size"} & set(words))
    return options, fixed


def target_of(name: str) -> Target:
    """The target of that name.

    Raises:
      UserError: no such target, or its compiler is not installed.
    """
    slices = ", ".join(
        f"{Target(chip, facts.slices[0])} to {Target(chip, facts.slices[-1])}"
        for chip, facts in CHIPS.items()
    )
    if not name:
        raise UserError(f"--target is missing; there are {slices}")
    try:
        chosen = target(name)
    except UserError as error:
        raise UserError(f"--target {name}: {error}; there are {slices}") from error
    if problem := chosen.missing():
        raise UserError(problem)
    return chosen


def compiled(
    options: Plan, chosen: Target, *, fixed_batch: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """The plan, by a process in whose environment the target's compiler works.

    Raises:
      UserError: a mistake in the request.
      PlanFailed: that process ended before its work.
    """
    request = {
        "name": options.recipe.name,
        "recipe": to_json(options.recipe),
        "target": str(chosen),
        "mesh": options.mesh,
        "fixed_batch": fixed_batch,
        "smallest": options.smallest,
    }
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}  # there is no such device, and XLA says so each time
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "train.plan"],
            env=os.environ | quiet | {"PYTHONPATH": path} | chosen.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdin is not None and process.stdout is not None  # PIPE above
            process.stdin.write(json.dumps(request))
            process.stdin.close()
            answer: dict[str, Any] = {}
            for line in process.stdout:
                answer = json.loads(line)
                if "say" in answer:
                    say(answer["say"])
        finally:
            process.kill()  # where the caller went away before the end
        if "error" in answer:
            raise UserError(answer["error"])
        if "plan" not in answer:
            errors.seek(0)
            tail = "\n".join(errors.read().splitlines()[-15:])
            raise PlanFailed(f"compiling for {chosen} ended with {process.wait()}:\n{tail}")
        return answer["plan"]


def _help() -> str:
    return (
        f"usage: {PROG} NAME --target TARGET [--mesh data=N,fsdp=N,tensor=N] [--batch-size N] "
        "[--window N] [--smallest] [--json] [FIELD ...]"
        "\n\nCompiles the training step of a recipe or model for hardware that is not here: bytes "
        "a device,\noperations, collectives, and an estimate of its time. Exit code 3 where it "
        "does not fit.\n\n"
        f"recipes: {', '.join(RECIPES)}\n\nmodels: {', '.join(MODELS)}\n\n"
        f"targets: {', '.join(SMALLEST)}, with a shape: h100x8, v5e:4x4, v5p:8x8x8\n\n"
        f"`{PROG} NAME --help` lists every field that can be set."
    )
