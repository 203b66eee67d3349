"""``result.json``: what a run reached and with what, and the hash by which two runs compare."""

import importlib.metadata
import json
import os
import platform
import shlex
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from train.checkpoint import digest
from train.config import Recipe, differences, to_json
from train.hardware import processor
from train.metric_log import replace_file
from train.recipes import RECIPES
from train.step import Objects

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def params_sha256(objects: Objects) -> str:
    """SHA-256 of every parameter and statistic in path order.

    Two runs are bitwise equal exactly when it agrees.
    """
    state = nnx.state(objects, (nnx.Param, nnx.BatchStat))
    flat = nnx.to_flat_state(state)
    return digest(["/".join(map(str, path)) for path, _ in flat], jax.tree.leaves(state))


def num_parameters(objects: Objects) -> int:
    """Trainable numbers in all networks of the task."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(objects, nnx.Param)))


def versions() -> dict[str, str]:
    """Python and the packages on which the numbers of a run depend."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def device() -> str:
    """The device in words, with the number of cores where it is a CPU."""
    first, count = jax.devices()[0], jax.device_count()
    if first.platform == "cpu":
        return f"cpu ({processor()}, {os.cpu_count()} cores)"
    return f"{count} x {first.device_kind}"


def command(recipe: Recipe) -> str:
    """The command that makes this run again: the recipe and every field that was changed."""
    flags = []
    changed = differences(to_json(RECIPES[recipe.name].load()), to_json(recipe))
    ours = to_json(recipe)
    for path in (line.split(":", 1)[0] for line in changed):
        value = ours
        for part in path.split("."):
            value = value[part]
        flag = path.replace("_", "-")
        if isinstance(value, bool):
            *parents, field = flag.split(".")
            flags.append("--" + ".".join([*parents, field if value else f"no-{field}"]))
        else:
            flags += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(["python", "-m", "train", "run", recipe.name, *flags])


def write_json(path: Path, value: Any) -> None:
    """Writes a whole file or none: a reader never meets half of it."""
    replace_file(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
