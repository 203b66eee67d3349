"""Killed anywhere and started again with the same command, a run ends as one that was left alone.

The lives that end early are processes of their own; the run that nobody disturbs is made here.
"""

import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.train import tiny
from train import loop, metric_log
from train.errors import UserError
from train.runfolder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
STEPS = 240
LONG = f"--steps {STEPS} --eval-every 60 --checkpoint.every 12"
RUNS = {
    # dropout, average of the weights, momentum
    "digits-mlp": "--optim.name momentum --optim.weight-decay 0 --optim.ema-decay 0.9",
    # dropout, augmentation, accumulation
    "digits-convnet": "--num-microbatches 2",
    # normalisation statistics
    "digits-resnet": "--log-every 7",
}


def run_here(name: str, folder: Path, *more: str, resume: loop.Resume = "auto") -> tuple[dict, str]:
    """Runs in this process; returns the result and what was said."""
    said = io.StringIO()
    recipe = tiny.recipe(name, *more)
    result = loop.run(recipe, workdir=folder, resume=resume, console=Console(file=said, width=999))
    return result, said.getvalue()


def measured(folder: Path) -> list[dict]:
    """All that metrics.jsonl holds but the time."""
    return [
        {k: v for k, v in row.items() if k != "wall_seconds"} for row in metric_log.read(folder)
    ]


class Life:
    """One process that runs a recipe, from its start to its end."""

    def __init__(self, name: str, folder: Path, *more: str, **environment: str):
        self.folder, self.log = folder, folder.with_name(f"{folder.name}.stderr")
        before = os.environ.get("PYTHONPATH")
        path = os.pathsep.join(filter(None, [str(ROOT), before]))
        command = [sys.executable, "-m", "train", "run", name, "--workdir", str(folder)]
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, *tiny.fields(name, LONG, RUNS[name], *more)],
                env=os.environ | {"PYTHONPATH": path} | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, event: Callable[[], bool], seconds: float = 200) -> None:
        """Returns as soon as ``event`` is true, which must be before the process ends."""
        end = time.monotonic() + seconds
        while not event():
            assert self.process.poll() is None, f"ended by itself:\n{self.said}"
            assert time.monotonic() < end, f"did not come to it in {seconds} s:\n{self.said}"
            time.sleep(0.002)

    def steps(self) -> int:
        """The newest step in metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        found = re.findall(rb'^{"step": (\d+)', path.read_bytes(), re.M) if path.exists() else []
        return int(found[-1]) if found else 0

    def saving(self) -> bool:
        """Whether a checkpoint is being written at this moment."""
        return any((self.folder / "checkpoints").glob("*tmp*"))

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait(30) == -signal.SIGKILL

    def end(self, number: signal.Signals, seconds: float = 10) -> int:
        """Sends a signal; returns the exit code, which must come within ``seconds``."""
        start = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert time.monotonic() - start < seconds, self.said
        return code

    def finish(self) -> None:
        assert self.process.wait(300) == 0, self.said


@pytest.fixture
def live(request) -> Iterator[Callable[..., Life]]:
    """Starts lives, and leaves none behind."""
    lives: list[Life] = []

    def start(*args, **keywords) -> Life:
        lives.append(Life(*args, **keywords))
        return lives[-1]

    yield start
    for life in lives:
        life.process.kill()
        life.process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[str], tuple[dict, list[dict]]]:
    """The result and the metrics of a run that nobody disturbs, made once a recipe."""
    known: dict[str, tuple[dict, list[dict]]] = {}

    def get(name: str) -> tuple[dict, list[dict]]:
        if name not in known:
            folder = tmp_path_factory.mktemp("undisturbed") / name
            result, _ = run_here(name, folder, LONG, RUNS[name])
            known[name] = result, measured(folder)
        return known[name]

    return get


def check_same_end(name: str, folder: Path, undisturbed) -> None:
    expected, metrics = undisturbed(name)
    found = loop.run(tiny.recipe(name, LONG, RUNS[name]), workdir=folder)  # only reads: it ended
    assert found["params_sha256"] == expected["params_sha256"]
    assert found["metrics"] == expected["metrics"]
    assert measured(folder) == metrics
    assert (folder / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize(
    ("name", "kills"),
    [
        ("digits-mlp", ["start", "step", "save"]),
        ("digits-convnet", ["step", "save", "folder"]),
        ("digits-resnet", ["save", "step"]),
    ],
)
def test_sigkill_anywhere(name, kills, seed, tmp_path, live, undisturbed):
    draw = random.Random(f"{name} {seed}")
    folder = tmp_path / "run"
    for kind in kills:
        life = live(name, folder)
        if kind == "start":
            time.sleep(draw.uniform(0.2, 4))
        elif kind == "folder":  # the run before left checkpoints; this one has opened the folder
            life.wait_for(lambda life=life: "resumed" in life.said)
        else:
            first = life.steps() + draw.randrange(15, 40)
            life.wait_for(lambda life=life, first=first: first <= life.steps())
            if kind == "save":
                life.wait_for(life.saving)
        life.kill()
    last = live(name, folder)
    last.finish()
    resumed = re.search(rf"resumed at step (\d+) of {STEPS}", last.said)
    assert resumed, last.said
    assert int(resumed[1]) % 12 == 0
    assert "damaged" not in last.said
    check_same_end(name, folder, undisturbed)


@pytest.mark.slow
def test_sigterm_and_ctrl_c_save_and_leave(tmp_path, live, undisturbed):
    name, folder = "digits-convnet", tmp_path / "run"
    stops: list[int] = []
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        life = live(name, folder)
        wanted = (stops[-1] if stops else 0) + 31
        life.wait_for(lambda life=life, wanted=wanted: life.steps() >= wanted)
        assert life.end(number) == code, life.said
        said = re.search(
            rf"^stopped at step (\d+) of {STEPS} and saved; the same command goes on from there$",
            life.said,
            re.M,
        )
        assert said, life.said
        assert "Traceback" not in life.said
        stops.append(int(said[1]))
        assert (folder / "checkpoints" / said[1]).is_dir()  # it is saved at the very step it names
        assert life.steps() == stops[-1]
    last = live(name, folder)
    last.finish()
    assert f"resumed at step {stops[-1]} of {STEPS}" in last.said
    check_same_end(name, folder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["import", "data", "compile"])
def test_sigterm_before_the_first_step(phase, tmp_path, live):
    """XLA holds the main thread while it compiles; Python's own handlers would wait for it."""
    folder, more, environment = tmp_path / "run", "", {}
    if phase == "data":
        environment = {"TFDS_DATA_DIR": str(tmp_path / "tfds")}
    if phase == "compile":
        more = "--model.stage-sizes 3 4 6 3 --model.width 8"
        environment = {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_LOG_COMPILES": "1"}
    life = live("digits-resnet", folder, more, **environment)
    if phase == "import":
        maps = Path(f"/proc/{life.process.pid}/maps")
        life.wait_for(lambda: "jaxlib" in maps.read_text())
    else:
        mark = "preparing mnist_5k" if phase == "data" else "Compiling jit(run)"
        life.wait_for(lambda: mark in life.said)
    assert life.end(signal.SIGTERM) == 0, life.said
    assert life.said.endswith("stopped: nothing new to save\n")
    assert "Traceback" not in life.said
    assert not folder.exists()


def test_a_finished_run_is_not_repeated(tmp_path):
    folder = tmp_path / "run"
    first, _ = run_here("linear-diabetes", folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    second, said = run_here("linear-diabetes", folder)
    assert second == first
    assert not said
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_killed_before_its_report_only_ends(tmp_path):
    folder = tmp_path / "run"
    first, _ = run_here("logistic-cancer", folder)
    rows = measured(folder)
    for name in ("result.json", "report.html"):
        (folder / name).unlink()
        again, said = run_here("logistic-cancer", folder)
        assert "resumed at step 8 of 8" in said
        assert again["params_sha256"] == first["params_sha256"]
        assert again["metrics"] == first["metrics"]
        assert measured(folder) == rows


def test_resume_never_starts_over(tmp_path):
    folder = tmp_path / "run"
    first, _ = run_here("linear-diabetes", folder)
    (folder / "notes.txt").write_text("mine")
    second, said = run_here("linear-diabetes", folder, "--steps 4", resume="never")
    assert "resumed" not in said
    assert second["steps"] == 4
    assert second["params_sha256"] != first["params_sha256"]
    assert [row["step"] for row in measured(folder)] == [1, 2, 3, 4]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["2", "4"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_the_newest_checkpoint_is_damaged(tmp_path):
    folder = tmp_path / "run"
    more = "--optim.ema-decay 0.5"
    first, _ = run_here("digits-convnet", folder, more)
    rows = measured(folder)
    for name in ("result.json", "report.html"):
        (folder / name).unlink()
    for path in (folder / "checkpoints/8/arrays").rglob("d/*"):
        os.truncate(path, path.stat().st_size // 2)
    again, said = run_here("digits-convnet", folder, more)
    assert re.search(r"^checkpoint 8 is damaged \(.*\); moved to .*/run/damaged/8$", said, re.M)
    assert "resumed at step 6 of 8" in said
    assert again["params_sha256"] == first["params_sha256"]
    assert measured(folder) == rows


def test_a_folder_that_was_killed_at_birth(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json.partial").write_text('{"na')
    result, _ = run_here("linear-diabetes", folder)
    assert result["steps"] == 8
    assert not (folder / "config.json.partial").exists()


def test_the_seed_decides(tmp_path):
    def hash_of(folder: str, *more: str) -> str:
        return run_here("digits-convnet", tmp_path / folder, *more)[0]["params_sha256"]

    first = hash_of("a")
    assert hash_of("b") == first
    assert hash_of("c", "--seed 1") != first
    # How often a run is saved, logged or evaluated does not change what it learns.
    assert hash_of("d", "--checkpoint.every 5 --log-every 3 --eval-every 8") == first


def test_a_run_does_not_go_on_with_another_tokenizer(tmp_path):
    """As after an update of a library, which may number the same words otherwise."""
    recipe, folder = tiny.recipe("bible-gpt"), RunFolder(tmp_path / "run")
    for _ in range(2):
        folder.open(recipe, "auto", {"tokenizer.json": "old"})
    for files in ({"tokenizer.json": "new"}, {}):
        with pytest.raises(UserError, match=r"tokenizer.json is not what the data give today"):
            folder.open(recipe, "auto", files)
    assert (folder.path / "tokenizer.json").read_text() == "old"
    folder.check_files()
    folder.open(recipe, "never", {"tokenizer.json": "new"})
    assert (folder.path / "tokenizer.json").read_text() == "new"
