"""The coordinator's end of a worker: start it, let it work while all others are stopped, end it."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from benchmarks.machine import ROOT


class WorkerError(Exception):
    """A worker ended, answered nothing in time or failed; the message has its last words."""


def environment(threads: int) -> dict[str, str]:
    """The environment of every worker: the same number of threads for every library."""
    count = str(threads)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {
        "PYTHONPATH": path,
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of compilers that lives on while we time
    }


class Worker:
    """A competitor's process: stopped at once after each answer, continued for a command."""

    def __init__(self, module: str, competitor: str, arrays: str, threads: int, patience: float):
        self.name, self.patience = competitor, patience
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed by close()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", module, competitor, arrays, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment(threads),
            text=True,
        )
        try:
            self.setup_seconds = float(self._answer()["setup_seconds"])
        except BaseException:  # an interrupt too: the process must not outlive us
            self.close()
            raise

    def advance(self, units: int) -> dict[str, list[float]]:
        """Do at least so many units of work: the seconds and the value of each."""
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None  # PIPE above
        try:
            self.process.stdin.write(json.dumps({"advance": units}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words("has ended")) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None  # PIPE above
        ready, _, _ = select.select([self.process.stdout], [], [], self.patience)
        if not ready:
            raise WorkerError(self._last_words(f"gave no answer in {self.patience:.0f} s"))
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise WorkerError(self._last_words(f"ended with code {self.process.returncode}"))
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def _last_words(self, what: str) -> str:
        self.errors.seek(0)
        tail = "\n".join(self.errors.read().splitlines()[-15:])
        return f"competitor {self.name!r} {what}" + (f":\n{tail}" if tail else "")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):  # an unsent command of a dead worker
                if stream is not None:
                    stream.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def prepare(module: str, arrays: str, threads: int, quick: bool) -> float | None:
    """Write an entry's initial weights and data to the file `arrays`; the FLOPs of one unit."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.worker", module, "--prepare", arrays, str(threads)),
            "--quick" if quick else "--full",
        ],
        capture_output=True,
        text=True,
        env=environment(threads),
    )
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        raise WorkerError(f"preparing {module} ended with code {done.returncode}:\n{tail}")
    return json.loads(done.stdout)["flops"]
