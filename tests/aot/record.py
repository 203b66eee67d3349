"""What the compilers made of every kernel, kept in `kernels.json`, since all of it takes long.

    python -m tests.aot.record        # compiles what has changed, for every chip; writes the file
    python -m tests.aot.record v5e    # for this one; the others' entries stay
    python -m tests.aot.record --all  # compiles what has not changed, too

Target -> case -> the promised kernels in the compiled program, the bytes that it takes beside its
arguments and results, and the SHA-256 of all that decides those, as `benchmarks.aot.fingerprint`
has it. `make test-aot` compiles what has another by now, and of each operation its least shape.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.aot import environment
from train.options import nearest
from train.result import write_json
from train.targets import SMALLEST

FILE = Path(__file__).with_name("kernels.json")

Entries = dict[str, dict[str, Any]]  # case -> what was found, or the error


def read() -> dict[str, Entries]:
    """Target -> case -> what the file says."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def compiled(name: str, *, only_changed: bool) -> Entries:
    """All cases of a target, by one process.

    Args:
      name: of the target.
      only_changed: give the file's entries for programs that are still the ones it speaks of, but
        for the least shapes.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.aot.worker", name, str(int(only_changed))],
        env=environment(name),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def main() -> None:
    """Compiles for the named targets, or for all, one after the other."""
    parser = argparse.ArgumentParser(description="Record what the compilers make of every kernel.")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="default: all")
    parser.add_argument("--all", action="store_true", help="also what has not changed")
    arguments = parser.parse_args()
    for name in arguments.targets:
        if name not in SMALLEST:
            parser.error(nearest("target", name, SMALLEST))
    entries = read()
    for name in arguments.targets or SMALLEST:
        found = compiled(name, only_changed=not arguments.all)
        for case, entry in found.items():
            assert "error" not in entry, f"{name} {case}:\n{entry['error']}"
        entries[name] = found
        write_json(FILE, {name: entries[name] for name in SMALLEST if name in entries})
        print(f"{name}: {len(found)} programs")


if __name__ == "__main__":
    main()
