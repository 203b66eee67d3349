"""Recorded results: runs recipes whole and keeps what they reached, with commit and hardware.

    python -m benchmarks record digits-convnet linear-diabetes

Every figure in the documentation is generated from ``benchmarks/results``; nothing there is typed.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from train.errors import UserError
from train.loop import run
from train.options import nearest
from train.recipes import RECIPES
from train.result import write_json

RESULTS = Path(__file__).parent / "results"


def record(names: Sequence[str], results: Path = RESULTS) -> list[Path]:
    """Trains each named recipe from the start and writes ``results/NAME.json``.

    Args:
      names: rows of ``RECIPES``; all of them where none is named.
      results: the folder to write to.

    Returns:
      The files written.

    Raises:
      UserError: an unknown recipe, or a working tree whose changes no commit names.
    """
    for name in names:
        if name not in RECIPES:
            raise UserError(nearest("recipe", name, RECIPES))
    commit = clean_commit()
    results.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names or RECIPES:
        workdir = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        result = run(RECIPES[name], workdir=workdir, resume="never")
        path = results / f"{name}.json"
        write_json(path, {"commit": commit, **result})
        shutil.rmtree(workdir)
        written.append(path)
    return written


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
