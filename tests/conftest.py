"""What every test shares: the shape checker, the caches, a random stream and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from flax import nnx

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
OPTIMISED = {"XLA_FLAGS": ""}  # for commands of a thousand steps, where it is worth its time

# Read by JAX and by TensorFlow Datasets when they are first imported, here and in subprocesses.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("TFDS_DATA_DIR", str(CACHE / "tfds"))
os.environ.setdefault("MPLBACKEND", "agg")

# Drawn examples are the same in every run, so that a change is what makes a test fail.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Every annotated shape and type of these packages is checked at every call.
install_import_hook(["zoo", "kernels", "train", "serve", "benchmarks"], "beartype.beartype")


def pytest_configure(config: pytest.Config) -> None:
    """Most programs of a test run once: to optimise their machine code takes longer than it saves.

    Fusions and layouts are those of every run; what is compiled for GPUs and TPUs is as in a run.
    """
    if config.getoption("markexpr") != "aot":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {flags}".strip()


@pytest.fixture(autouse=True, scope="module")
def no_programs_of_other_modules() -> Iterator[None]:
    """A module's compiled programs end with it: each holds several of the process's mappings.

    Linux grants a process 65,530 (`vm.max_map_count`); XLA's compiler aborts when they are used up.
    """
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


class CliResult(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def rngs() -> nnx.Rngs:
    """Random streams that start from the same seed in every test."""
    from flax import nnx  # late: the tests of lazy imports must not find it loaded

    return nnx.Rngs(0)


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., CliResult]:
    """A function that runs `python -m train ARGUMENTS` in `tmp_path`, in a process of its own."""

    def run(*arguments: str | Path, timeout: float = 300, **environment: str) -> CliResult:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-m", "train", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return CliResult(done.returncode, done.stdout, done.stderr)

    return run
