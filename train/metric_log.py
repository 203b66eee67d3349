"""What a run measured: ``metrics.jsonl``, one object a logged step, and TensorBoard's copy of it.

    {"step": 120, "wall_seconds": 3.125, "train/loss": 0.25, "eval/accuracy": 0.96}

JSON has no NaN and no infinity, so these are the strings "NaN", "Infinity" and "-Infinity" (as in
Protocol Buffers' JSON): valid for every parser, and :func:`read` gives the numbers back.

The text file is the truth. Each line goes to the kernel in one write, so a killed run leaves at
most one torn last line, which reading ignores and resuming removes. The event file under
``tensorboard/`` is a projection that may lag by `FLUSH_SECONDS`; a resumed run writes it anew from
the kept lines.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from train.errors import UserError

FILE = "metrics.jsonl"
FLUSH_SECONDS = 20.0  # between syncs of the event file, which cost milliseconds each
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
OWN_KEYS = ("step", "wall_seconds")


class MetricLog:
    """Appends the metrics of logged steps to a run folder. A context manager.

    Args:
      workdir: the run folder; made where it is missing.
      resume_step: the step of the checkpoint that the run goes on from: later lines are dropped, as
        those steps are taken again. None is a new run: an earlier log is dropped whole.
    """

    def __init__(self, workdir: Path, resume_step: int | None = None):
        path = workdir / FILE
        workdir.mkdir(parents=True, exist_ok=True)
        before = [] if resume_step is None else read(workdir)
        kept = [row for row in before if row["step"] <= (resume_step or 0)]
        text = "".join(_line(row) for row in kept)
        if path.exists() and path.read_bytes() != text.encode():
            replace_file(path, text)
        self.last_step = kept[-1]["step"] if kept else -1
        self._file = path.open("ab", buffering=0)
        self._events = _EventFile(workdir / "tensorboard", kept)

    def write(self, step: int, wall_seconds: float, metrics: Mapping[str, SupportsFloat]) -> None:
        """Appends one line.

        Args:
          step: updates taken so far; rises from line to line.
          wall_seconds: time spent on the run so far, over all its resumptions.
          metrics: numbers of any library, scalar arrays included.

        Raises:
          ValueError: a step that is not after the last one, or a metric named as an own key.
          OSError: the line could not be written whole; what was written of it is taken back.
        """
        if step <= self.last_step:
            raise ValueError(f"step {step} is not after the last logged step {self.last_step}")
        if clash := [key for key in OWN_KEYS if key in metrics]:
            raise ValueError(
                f"metric name {clash[0]!r} is taken; the log's own keys are {OWN_KEYS}"
            )
        row = {"step": step, "wall_seconds": round(float(wall_seconds), 3)}
        row |= {name: float(value) for name, value in metrics.items()}
        line = _line(row).encode()
        start = os.fstat(self._file.fileno()).st_size
        if (written := self._file.write(line)) != len(line):  # a full disk takes what fits
            self._file.truncate(start)
            raise OSError(
                f"{self._file.name}: only {written} of {len(line)} bytes could be written"
            )
        self.last_step = step
        self._events.write(row)

    def close(self) -> None:
        """Syncs both files and closes them; closing twice is harmless."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
            self._events.close()

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(workdir: Path) -> list[dict[str, Any]]:
    """The logged rows of a run folder, numbers as floats; a torn last line is left out.

    Raises:
      UserError: a line before the last one is damaged.
    """
    path = workdir / FILE
    if not path.exists():
        return []
    # What follows the last newline is nothing, or a torn line.
    *lines, _torn = path.read_bytes().split(b"\n")
    return [_row(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def replace_file(path: Path, text: str) -> None:
    """Writes a whole file so that a crash leaves the old one or the new one, never a mixture."""
    fresh = path.with_name(path.name + ".partial")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        valid = row["step"] >= 0 and row["wall_seconds"] >= 0
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise UserError(
            f"{where} is not a logged step: {line[:40]!r}; remove it, or start the run anew"
        )
    return {k: NON_FINITE.get(v, v) if isinstance(v, str) else v for k, v in row.items()}


def _line(row: dict[str, Any]) -> str:
    def encode(value: Any) -> Any:
        if not isinstance(value, float) or math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    return json.dumps({k: encode(v) for k, v in row.items()}, allow_nan=False) + "\n"


class _EventFile:
    """TensorBoard's file, written in the caller's thread and without tensorboardX's worker, which
    would keep minutes of events in a queue that a killed process loses."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]]):
        # Late: where PyTorch is installed, tensorboardX imports it, and that takes seconds.
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._origin = time.time() - (rows[-1]["wall_seconds"] if rows else 0.0)
        self._writer = EventsWriter(str(folder / "events"))
        self._synced = time.monotonic()
        for row in rows:
            self.write(row)

    def write(self, row: dict[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore # made at import
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore # made at import

        values = [Summary.Value(tag=k, simple_value=v) for k, v in row.items() if k not in OWN_KEYS]
        event = Event(
            wall_time=self._origin + row["wall_seconds"],
            step=row["step"],
            summary=Summary(value=values),
        )
        self._writer.write_event(event)
        if time.monotonic() - self._synced > FLUSH_SECONDS:
            self._writer.flush()
            self._synced = time.monotonic()

    def close(self) -> None:
        self._writer.close()
