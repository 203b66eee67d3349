"""The log of a run: what is on disk after every line, after a crash and after a resume."""

import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from train import metric_log
from train.errors import UserError
from train.metric_log import MetricLog


def steps(workdir: Path) -> list[int]:
    return [row["step"] for row in metric_log.read(workdir)]


def events(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the event files by tag, read with the framing of TensorFlow's records."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore (made at import by protobuf)

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def write_run(workdir: Path, num_steps: int, resume_step: int | None = None) -> None:
    with MetricLog(workdir, resume_step) as log:
        for step in range((resume_step or 0) + 1, num_steps + 1):
            log.write(step, 0.5 * step, {"train/loss": 1 / step})


def test_lines_hold_what_was_measured(tmp_path):
    with MetricLog(tmp_path / "run") as log:
        log.write(1, 0.5, {"train/loss": np.float32(0.5)})
        log.write(20, 2.25, {"train/loss": 0.25, "eval/accuracy": np.array(1)})
    assert metric_log.read(tmp_path / "run") == [
        {"step": 1, "wall_seconds": 0.5, "train/loss": 0.5},
        {"step": 20, "wall_seconds": 2.25, "train/loss": 0.25, "eval/accuracy": 1.0},
    ]


def test_a_line_is_on_disk_before_write_returns(tmp_path):
    log = MetricLog(tmp_path)
    log.write(1, 1.0, {"train/loss": 0.5})
    assert steps(tmp_path) == [1]
    log.close()
    log.close()


def test_non_finite_values_are_valid_json_and_come_back(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(1, 1.0, {"a": math.nan, "b": math.inf, "c": -math.inf})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse)["a"] == "NaN"
    (row,) = metric_log.read(tmp_path)
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf


def test_event_files_hold_the_same_scalars(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(1, 1.0, {"train/loss": 0.5})
        log.write(2, 2.0, {"train/loss": 0.25, "eval/accuracy": 0.75})
    assert events(tmp_path) == {
        "train/loss": [(1, 0.5), (2, 0.25)],
        "eval/accuracy": [(2, 0.75)],
    }


def test_event_files_are_synced_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(metric_log, "FLUSH_SECONDS", 0.0)
    log = MetricLog(tmp_path)
    log.write(1, 1.0, {"train/loss": 0.5})
    assert events(tmp_path) == {"train/loss": [(1, 0.5)]}
    log.close()


def test_resume_drops_what_comes_after_the_checkpoint(tmp_path):
    write_run(tmp_path, 10)
    write_run(tmp_path, 8, resume_step=4)
    assert steps(tmp_path) == list(range(1, 9))
    assert [step for step, _ in events(tmp_path)["train/loss"]] == list(range(1, 9))
    assert not list(tmp_path.glob("*.partial"))


def test_a_new_run_drops_the_old_log(tmp_path):
    write_run(tmp_path, 5)
    write_run(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]


def test_resume_without_a_log_starts_one(tmp_path):
    write_run(tmp_path, 6, resume_step=3)
    assert steps(tmp_path) == [4, 5, 6]


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_torn_last_line_is_ignored_and_then_repaired(tmp_path, cut):
    write_run(tmp_path, 5)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert steps(tmp_path) == [1, 2, 3, 4]
    with MetricLog(tmp_path, 5) as log:
        log.write(6, 6.0, {"train/loss": 0.1})
    assert steps(tmp_path) == [1, 2, 3, 4, 6]
    assert path.read_bytes().count(b"\n") == 5


@pytest.mark.parametrize("damage", ["oops", "[1]", "3", '{"step": 2}', '{"step": -1}', "null"])
def test_damage_before_the_last_line_is_named(tmp_path, damage):
    write_run(tmp_path, 3)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage, lines[2], ""]))
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is not a logged step"):
        metric_log.read(tmp_path)


def test_steps_must_rise_and_names_must_be_free(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(3, 3.0, {})
        with pytest.raises(ValueError, match="step 3 is not after"):
            log.write(3, 3.0, {})
        with pytest.raises(ValueError, match="'wall_seconds' is taken"):
            log.write(4, 4.0, {"wall_seconds": 1.0})
    assert steps(tmp_path) == [3]


def test_no_log_reads_as_no_rows(tmp_path):
    assert metric_log.read(tmp_path) == []


def test_a_full_disk_leaves_whole_lines(tmp_path):
    log = MetricLog(tmp_path)
    log.write(1, 1.0, {"train/loss": 0.5})
    size = (tmp_path / "metrics.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
        with pytest.raises(OSError, match="10 of"):
            log.write(2, 2.0, {"train/loss": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert (tmp_path / "metrics.jsonl").stat().st_size == size
    log.write(2, 2.0, {"train/loss": 0.25})  # space was freed
    log.close()
    assert steps(tmp_path) == [1, 2]


def test_a_killed_run_leaves_whole_lines(tmp_path):
    code = (
        "import sys, itertools, pathlib\n"
        "from train.metric_log import MetricLog\n"
        "log = MetricLog(pathlib.Path(sys.argv[1]))\n"
        "for step in itertools.count(1):\n"
        "    log.write(step, 0.01 * step, {'train/loss': 1.0})\n"
        "    if step == 300: print('go', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stdout.readline() == b"go\n"
        os.kill(run.pid, signal.SIGKILL)
    last = len(steps(tmp_path))
    assert last >= 300
    write_run(tmp_path, last + 1, resume_step=last)
    assert steps(tmp_path) == list(range(1, last + 2))
    assert len(events(tmp_path)["train/loss"]) == last + 1
