"""The loop that drives any task: set up, resume, train, evaluate, save, report.

It knows no model and no loss. Everything that decides the result is in the recipe, and everything
that must survive a kill is in the checkpoint: arrays, random streams, the position in the data, and
the running sums behind the next line of ``metrics.jsonl``.
"""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from rich.console import Console

import kernels
from train import result
from train.arrays import on_host
from train.checkpoint import Checkpoints
from train.config import Recipe, to_json
from train.data import to_device, train_batches
from train.distributed import Distributed, joined
from train.errors import NonFinite, UserError
from train.evaluation import compile_eval, evaluate
from train.gradient import Metrics
from train.layouts import Layout, Mode
from train.metric_log import MetricLog
from train.parallel import check_batch, layout
from train.peers import Peers
from train.progress import Display, standard_error
from train.recipes import RECIPES, Row
from train.report import write_report
from train.runfolder import RunFolder
from train.shutdown import Shutdown, Stopped
from train.step import Objects, Program
from train.task import Outputs, Task
from train.tasks import make_task

Resume = Literal["auto", "never"]
PHASES = ("setup", "compile", "train", "eval")


def run(
    recipe: Row | Recipe,
    *,
    workdir: Path | str | None = None,
    resume: Resume = "auto",
    parallel: Mode = "jit",
    mesh: str | None = None,
    distributed: Distributed | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains a recipe and returns what ``result.json`` holds.

    Args:
      recipe: a row of ``RECIPES``, or a recipe with fields replaced.
      workdir: the run folder; ``runs/NAME`` where none is named. A run that was cut off there goes
        on; one that has ended is not repeated.
      resume: ``"never"`` replaces the run in ``workdir``.
      parallel: how the devices share the work; a run may go on under another mode.
      mesh: devices along the axes of ``parallel="mesh"``, as ``"data=2,fsdp=2,tensor=2"``.
      distributed: where the other processes are that run the same; none by default.
      console: where progress is shown; standard error by default.

    Raises:
      UserError: a mistake in recipe, data, folder or devices, before anything is written.
      NonFinite: the loss or a gradient became NaN or infinite.
      Stopped: SIGTERM or Ctrl-C arrived, and the run was saved.
    """
    kernels.keep_freed_memory()
    recipe = recipe.load() if isinstance(recipe, Row) else recipe
    folder = RunFolder(Path(workdir) if workdir else Path("runs") / recipe.name)
    if distributed and parallel == "jit":
        raise UserError("--distributed: --parallel jit has one device; use pmap, shard_map or mesh")
    same = {"parallel": parallel, "mesh": mesh, "resume": resume, **to_json(recipe)}
    with joined(distributed, same) as peers:
        console = console or (standard_error() if peers.first else Console(quiet=True))
        if peers.first:
            folder.check(recipe, resume)
        if resume == "auto":
            (finished, *_) = peers.gather(folder.finished() if peers.first else None)
            if finished:
                return finished
        where = layout(parallel, mesh)
        with Shutdown(console.print, peers.end) as shutdown:
            return Trainer(recipe, folder, resume, where, shutdown, console, peers).run()


def build(recipe: Recipe, folder: Path | None = None) -> tuple[Task, Objects]:
    """The task of a recipe on its data, and its objects at step 0.

    Args:
      recipe: what to build.
      folder: of a run that is opened again, for the files that it wrote.

    Raises:
      UserError: the data cannot be read, or do not fit the model or the task.
    """
    task = make_task(recipe, kernels.best(), folder)
    try:
        return task, task.build(nnx.Rngs(recipe.seed))
    except ValueError as error:  # a model that cannot take the shape of the data
        raise UserError(f"data {task.data.name!r} do not fit the model: {error}") from error


class Trainer:
    """One run from its first step to its report; use :func:`run`."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        resume: Resume,
        where: Layout,
        shutdown: Shutdown,
        console: Console,
        peers: Peers,
    ):
        self.recipe, self.folder, self.row = recipe, folder, RECIPES[recipe.name]
        self.resume: Resume = resume
        self.layout, self.peers = where, peers
        self.shutdown, self.console = shutdown, console
        self.seconds: dict[str, float] = {phase: 0.0 for phase in PHASES}
        self.data_wait = 0.0  # seconds, at most, that the device stood still for want of a batch
        self.window: dict[str, float] = {}  # sums since the last line of metrics.jsonl
        self.window_steps = 0
        self.step = 0
        self.outputs: Outputs | None = None  # of the newest evaluation
        self.log: MetricLog | None = None  # of process 0

    @contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Adds the time inside to one phase of ``result.json``'s seconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start

    def run(self) -> dict[str, Any]:
        with ExitStack() as self.opened:
            self._set_up()
            display = Display(self.console, self.recipe, self.step)
            with display as self.display, self.shutdown.training():
                self._train()
                self.checkpoints.wait()
            if self._is_asked_to_stop(last=True):  # after the last step was taken
                self._stop()
            return self._finish()

    def _set_up(self) -> None:
        recipe = self.recipe
        with self.clock("setup"):
            self.task, objects = build(recipe)
            check_batch(self.layout, recipe.batch_size, self.task.pieces)
            rows = {"train rows": len(self.task.data.train), "eval rows": len(self.task.data.eval)}
            self.peers.agree("data or devices", {**rows, "devices": jax.local_device_count()})
            self.program = Program(objects, self.layout, self.task.pieces)
            batches = train_batches(
                self.task.data.train,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                positions=self.layout.positions(recipe.batch_size, self.task.pieces),
            )
            put = self.program.put if self.layout.num_devices > 1 else None
            self.padding, self.batches = batches.padding, to_device(batches, put=put)
        with self.clock("compile"):
            self.program.compile_train(self.task.train_step, *batches.examples())
            compile_eval(self.program, self.task)
        with self.clock("setup"):
            # Everything that can be wrong with the command was found above; now files appear.
            if self.peers.first:
                self.folder.open(recipe, self.resume, self.task.files())
            self.peers.gather()
            self.folder.check_shared()
            self.checkpoints = Checkpoints(
                self.folder.checkpoints,
                recipe.checkpoint,
                self.row.metric,
                self.row.direction,
                peers=self.peers,
            )
            self.opened.callback(self.checkpoints.close)
            self.console.print(kernels.summary(self.task.ops))
            self._restore()
            if self.peers.first:
                self.log = MetricLog(self.folder.path, resume_step=self.step)
                self.opened.callback(self.log.close)

    def _restore(self) -> None:
        program = self.program
        found = self.checkpoints.restore(program.paths, program.leaves, self.console.print)
        if found is None:
            return
        program.leaves, self.step = found.leaves, found.step
        progress = found.progress
        self.batches.set_state(progress["data"])
        self.window, self.window_steps = progress["window"], progress["window_steps"]
        for phase, seconds in progress["seconds"].items():
            self.seconds[phase] += seconds
        self.data_wait = progress["data_wait"]
        self.console.print(f"resumed at step {self.step} of {self.recipe.steps}")

    def _evaluates(self, step: int) -> bool:
        return step == self.recipe.steps or step % self.recipe.eval_every == 0

    def _saves(self, step: int) -> bool:
        return step == self.recipe.steps or step % self.recipe.checkpoint.every == 0

    def _train(self) -> None:
        flying: deque[tuple[int, Any, Any]] = deque()
        while self.step < self.recipe.steps:
            with self.clock("train"):
                start = time.perf_counter()
                batch = next(self.batches)
                fetch = time.perf_counter() - start
                # While the step in flight computes, fetching costs nothing. Where it has ended, the
                # device may have stood still for as long as the fetch took.
                if not flying or _is_done(flying[-1][2]):
                    self.data_wait += fetch
                self.step += 1
                flying.append((self.step, batch, self.program.train(batch)))
                stops = self._is_asked_to_stop()  # once: a request may come at any line below
                evaluates, saves = self._evaluates(self.step), stops or self._saves(self.step)
                # One step stays in flight while the one before it is looked at, so the device never
                # waits for Python; before an evaluation or a save all of them are looked at.
                while len(flying) > (0 if evaluates or saves else 1):
                    self._look_at(*flying.popleft())
            evaluation = self._evaluate(batch) if evaluates else None
            if saves:
                self._save(evaluation)
            if stops:
                self._stop()

    def _look_at(self, step: int, batch, metrics) -> None:
        """Adds one step's metrics to the window; a value that is not finite ends the run."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            self._end_non_finite(step, batch, bad[0], values[bad[0]])
        for name, value in values.items():
            self.window[name] = self.window.get(name, 0.0) + value
        self.window_steps += 1
        shown = self.task.summary_metric
        self.display.update(step, {_short(n): values[n] for n in ("train/loss", shown)})
        if step % self.recipe.log_every == 0 and not self._evaluates(step):
            self._write(step, {})

    def _write(self, step: int, evaluation: dict[str, float]) -> None:
        means = {name: total / self.window_steps for name, total in self.window.items()}
        self.window, self.window_steps = {}, 0
        wall = sum(self.seconds.values())
        if self.log:
            self.log.write(step, wall, {**means, **{f"eval/{k}": v for k, v in evaluation.items()}})

    def _evaluate(self, batch) -> dict[str, float]:
        with self.clock("eval"):
            self.outputs = evaluate(self.program, self.task)
            # A step's loss is that before its update, so an overflow may first be seen here.
            for name, values in self.outputs.items():
                if not (finite := np.isfinite(values)).all():
                    self._end_non_finite(
                        self.step, batch, f"eval/{name}", float(values[~finite][0])
                    )
            metrics = self.task.summarise(self.outputs)
        names = ("loss", self.row.metric)  # word vectors have no loss on held-out text
        shown = {f"eval {name}": metrics[name] for name in names if name in metrics}
        self.display.line(self.step, shown)
        self._write(self.step, metrics)
        return metrics

    def _save(self, evaluation: dict[str, float] | None) -> None:
        progress = {
            "data": self.batches.get_state(),
            "window": self.window,
            "window_steps": self.window_steps,
            "seconds": self.seconds,
            "data_wait": self.data_wait,
        }
        with self.clock("train"):
            self.checkpoints.save(
                self.step, self.program.paths, self.program.leaves, progress, evaluation
            )

    def _is_asked_to_stop(self, *, last: bool = False) -> bool:
        asked = self.peers.asked(self.step, self.shutdown.received, last=last)
        if asked is not None:
            self.shutdown.received = asked
        return asked is not None

    def _stop(self) -> None:
        self.checkpoints.wait()
        raise Stopped(
            f"stopped at step {self.step} of {self.recipe.steps} and saved; "
            "the same command goes on from there",
            self.shutdown.exit_code,
        )

    def _end_non_finite(self, step: int, batch, name: str, value: float) -> None:
        path = self.folder.path / "nonfinite" / f"step-{step}.npz"
        rows = jax.tree.map(on_host, batch)
        if self.peers.first:
            path.parent.mkdir(exist_ok=True)
            np.savez(path, **rows)
            write_report(self.folder.path)  # the curves up to here show how it came to this
        self.peers.gather()
        raise NonFinite(
            f"{name} is {value} at step {step}; its batch is in {path}, and the same command "
            "replays the steps from the last checkpoint; try a smaller --optim.peak-lr or "
            "--optim.clip-norm 1"
        )

    def _finish(self) -> dict[str, Any]:
        recipe, row, task = self.recipe, self.row, self.task
        with self.clock("eval"):
            # A run that was cut off between its last save and here has no outputs in memory.
            outputs = self.outputs or evaluate(self.program, task)
            metrics = task.summarise(outputs)
        objects = self.program.objects()
        if not self.peers.first:
            return self.peers.gather()[0]
        baseline = task.baseline(self.folder.path)
        value = baseline.value if baseline else None
        train = self.seconds["train"]
        summary = {
            "recipe": recipe.name,
            "model": row.model,
            "parameters": result.num_parameters(objects),
            "steps": recipe.steps,
            "seed": recipe.seed,
            "metrics": {f"eval/{name}": number for name, number in metrics.items()},
            "metric": row.metric,
            "threshold": row.threshold_value(value),
            "passed": row.passed(metrics, value),
            "baseline": {"name": baseline.name, "value": value} if baseline else None,
            "seconds": {phase: round(s, 3) for phase, s in self.seconds.items()},
            "steps_per_second": round(recipe.steps / train, 3) if train else None,
            "params_sha256": result.params_sha256(objects),
            "versions": result.versions(),
            "device": result.device(),
            "parallel": {
                "mode": self.layout.mode,
                "devices": self.layout.describe(),
                "processes": self.peers.count,
            },
            "data_wait_fraction": round(self.data_wait / train, 5) if train else None,
            "padding_fraction": self.padding if self.padding is None else round(self.padding, 5),
            "train_flops": self.program.train_flops,
            "kernels": kernels.describe(task.ops),
            "cleaning": dataclasses.asdict(task.data.cleaning),
            "command": result.command(recipe),
        }
        result.write_json(self.folder.path / "result.json", summary)
        write_report(self.folder.path, task.sections(objects, outputs))
        return self.peers.gather(summary)[0]


def _is_done(metrics: Metrics) -> bool:
    """Whether a step's metrics are there; nothing is waited for."""
    # Every array has `is_ready`, though the annotations of JAX lack it; test_step would miss it.
    arrays: list[Any] = list(metrics.values())
    return all(array.is_ready() for array in arrays)


def _short(name: str) -> str:
    return name.removeprefix("train/")


def restore(folder: RunFolder, console: Console) -> tuple[Task, Program, int]:
    """The task, the compiled evaluation and the newest step of a run folder.

    Raises:
      UserError: no run there, or none of its checkpoints can be read.
    """
    recipe = folder.recipe()
    folder.check_files()
    task, objects = build(recipe, folder.path)
    program = Program(objects)
    row = RECIPES[recipe.name]
    checkpoints = Checkpoints(
        folder.checkpoints, recipe.checkpoint, row.metric, row.direction, read_only=True
    )
    found = checkpoints.restore(program.paths, program.leaves, console.print)
    checkpoints.close()
    if found is None:
        raise UserError(f"{folder.path} holds no readable checkpoint; run its recipe again")
    program.leaves = found.leaves
    compile_eval(program, task)
    return task, program, found.step
