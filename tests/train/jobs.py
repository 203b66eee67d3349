"""Several processes that run one command together, as a launcher would start them."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT

FIRST_PORT = 65535 - 2**12 + 1  # above those that the system hands out, and JAX's for SLURM
PATIENCE = 400.0  # seconds, as a busy machine may take a few for each of many processes to start


def free_port() -> int:
    """A port that nobody has."""
    while True:
        port = random.randint(FIRST_PORT, 65535)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port


class Job:
    """Several processes that run one command together."""

    def __init__(self, folder: Path, commands: Sequence[Sequence[str]], **environment: str):
        self.folder, self.logs, self.processes = folder, [], []
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"PYTHONPATH": path, "JAX_NUM_CPU_DEVICES": "1"}
        folder.parent.mkdir(exist_ok=True)
        for index, command in enumerate(commands):
            logs = [folder.with_name(f"{folder.name}.{index}.{kind}") for kind in ("out", "err")]
            self.logs.append(logs)
            with logs[0].open("w") as out, logs[1].open("w") as err:
                self.processes.append(
                    subprocess.Popen(
                        command,
                        env=os.environ | own | environment,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=err,
                        start_new_session=True,
                    )
                )

    def said(self, index: int) -> str:
        return self.logs[index][1].read_text()

    def printed(self, index: int) -> str:
        return self.logs[index][0].read_text()

    @property
    def all_said(self) -> str:
        return "\n".join(f"--- {i}\n{self.said(i)[-3000:]}" for i in range(len(self.processes)))

    def codes(self, seconds: float = PATIENCE) -> list[int]:
        """Waits until all have ended."""
        end = time.monotonic() + seconds
        try:
            return [p.wait(max(0.1, end - time.monotonic())) for p in self.processes]
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"did not end in {seconds} s:\n{self.all_said}") from error

    def wait_for_step(self, step: int) -> None:
        path, end = self.folder / "metrics.jsonl", time.monotonic() + PATIENCE
        while step > max([0, *map(int, re.findall(r'^{"step": (\d+)', read(path), re.M))]):
            ended = [process.poll() for process in self.processes]
            assert ended == [None] * len(ended), f"ended by themselves:\n{self.all_said}"
            assert time.monotonic() < end, f"did not come to step {step}:\n{self.all_said}"
            time.sleep(0.005)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
                process.wait()


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def commands(count: int, folder: Path, name: str, *fields: str) -> list[list[str]]:
    """``run NAME`` in so many processes."""
    shared = ["run", name, "--workdir", str(folder), *fields, "--distributed"]
    place = ["--coordinator", f"localhost:{free_port()}", "--num-processes", str(count)]
    place += ["--start-seconds", str(PATIENCE)]
    return [
        [sys.executable, "-m", "train", *shared, *place, "--process-id", str(index)]
        for index in range(count)
    ]
