"""Recorded results: runs recipes whole and keeps what they reached, with commit and hardware.

    python -m benchmarks record digits-convnet linear-diabetes
    python -m benchmarks record bible-gpt --seeds 1 2 3

Every figure in the documentation is generated from ``benchmarks/results``; nothing there is typed.
"""

import dataclasses
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.config import Recipe
from train.errors import UserError
from train.loop import run
from train.options import nearest
from train.recipes import RECIPES
from train.result import write_json

RESULTS = Path(__file__).parent / "results"


def record(names: Sequence[str], seeds: Sequence[int] = (), results: Path = RESULTS) -> list[Path]:
    """Trains each named recipe from the start and writes ``results/NAME.json``.

    Of several seeds the file holds the first one's result and, as ``seeds`` and ``mean``, what the
    recipe is judged by for each of them and on average.

    Args:
      names: rows of ``RECIPES``; all of them where none is named.
      seeds: to train each recipe with; the recipe's own where none is given.
      results: the folder to write to.

    Returns:
      The files written.

    Raises:
      UserError: an unknown recipe, or a working tree whose changes no commit names.
      Stopped: SIGTERM or Ctrl-C arrived; what was not yet trained to its end is not kept.
    """
    for name in names:
        if name not in RECIPES:
            raise UserError(nearest("recipe", name, RECIPES))
    commit = clean_commit()
    results.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names or RECIPES:
        recipe = RECIPES[name].load()
        runs = {seed: _run(recipe, seed) for seed in seeds or (recipe.seed,)}
        result = {"commit": commit, **next(iter(runs.values()))}
        if len(runs) > 1:
            metric = f"eval/{result['metric']}"
            result["seeds"] = {str(seed): one["metrics"][metric] for seed, one in runs.items()}
            result["mean"] = statistics.fmean(result["seeds"].values())
        path = results / f"{name}.json"
        write_json(path, result)
        written.append(path)
    return written


def _run(recipe: Recipe, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix=f"{recipe.name}-") as workdir:
        return run(dataclasses.replace(recipe, seed=seed), workdir=workdir, resume="never")


def clean_commit() -> str:
    """The commit of the code that runs.

    Raises:
      UserError: the code differs from its commit, so a result could not be made again from it.
    """
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "../zoo", "../train", "../kernels"],
        capture_output=True,
        text=True,
    )
    if changed.returncode or changed.stdout.strip():
        why = changed.stderr.strip() or f"uncommitted: {changed.stdout.split()[1]}"
        raise UserError(
            f"results are recorded from a commit, and there is none ({why}); commit first"
        )
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return head.stdout.strip()
