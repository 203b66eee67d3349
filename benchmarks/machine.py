"""What a timing depends on besides the code: processor, its peak, load, versions, commit."""

import ctypes
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from train.hardware import processor

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
ROOT = Path(__file__).resolve().parent.parent


def describe(threads: int) -> dict[str, object]:
    """Processor, memory, threads, system, versions and commit."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
    }


def peak_flops(threads: int) -> float:
    """The float32 matmul rate in FLOP/s that this machine reaches: the best of repeated products.

    Measured by this module's own process, so that the thread pool is gone before anything is timed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.machine", str(threads)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return float(json.loads(done.stdout))


def load_average() -> float:
    """Runnable processes over the last minute."""
    return os.getloadavg()[0]


def busy_seconds() -> float | None:
    """CPU seconds that all programs together have taken since boot; None outside Linux."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, first[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float | None:
    """CPU seconds that a process with all its threads has taken; None outside Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pin(threads: int) -> None:
    """Keep this process and all threads it will start on the first `threads` cores it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def end_with_parent() -> None:
    """Have Linux kill this process when its parent ends: a stopped one would wait for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def available_threads() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit, with "-changed" where tracked files differ from it; "unknown" outside git.

    Results that were written a moment ago are no change of what is measured.
    """
    changed = ["git", "status", "--porcelain", "-uno", "--", ".", ":(exclude)benchmarks/results"]
    try:
        run = [["git", "rev-parse", "HEAD"], changed]
        commit, changes = (
            subprocess.run(r, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
            for r in run
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-changed" if changes else "")


def _measure_peak(size: int = 2048, repeats: int = 8) -> float:
    import jax
    import jax.numpy as jnp

    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


if __name__ == "__main__":
    pin(int(sys.argv[1]))
    print(json.dumps(_measure_peak()))
