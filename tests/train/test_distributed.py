"""One run in several processes, started by the real command line: the same losses as one process,
bit for bit the same when some are killed, one clear line on all of them when something is wrong.

The commands are those of the launch files in `docs/launch`, but for names.
"""

import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from flax import nnx
from rich.console import Console

from tests.close import assert_close
from tests.conftest import OPTIMISED, ROOT
from tests.train import tiny
from tests.train.jobs import FIRST_PORT, Job, commands, free_port
from train import loop, metric_log
from train.data import load
from train.data.tables import EpochOrder
from train.runfolder import RunFolder

LAUNCH = ROOT / "docs/launch"
SHARED = "/shared/runs/digits-mlp"  # what the launch files call the run folder
LOST = r"error: process {} of {} of this run was lost; start the same command again on all of them"


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Job]]:
    """Starts jobs, and leaves no process of them behind."""
    jobs: list[Job] = []

    def started(*arguments, **keywords) -> Job:
        jobs.append(Job(*arguments, **keywords))
        return jobs[-1]

    yield started
    for job in jobs:
        job.end()


def run_here(name: str, folder: Path, *fields: str) -> dict:
    """The run of one process on one device."""
    recipe = tiny.recipe(name, *fields)
    return loop.run(recipe, workdir=folder, console=Console(quiet=True))


def assert_same(folder: Path, other: Path) -> None:
    """Two run folders hold the same metrics and parameters, but for rounding."""
    rows, expected = metric_log.read(folder), metric_log.read(other)
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for name in expected[-1].keys() - {"wall_seconds"}:
        actual = np.array([row[name] for row in rows if name in row])
        assert_close({name: actual}, {name: np.array([r[name] for r in expected if name in r])})
    assert_close(parameters(folder), parameters(other))


def parameters(folder: Path) -> np.ndarray:
    """All that one process on one device reads of the networks in a run's newest checkpoint."""
    _, program, _ = loop.restore(RunFolder(folder), Console(quiet=True))
    state = nnx.state(program.objects(), (nnx.Param, nnx.BatchStat))
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state)])


def cut_off(folder: Path) -> None:
    """As if the run had been killed between its last two checkpoints."""
    for name in ("result.json", "report.html"):
        (folder / name).unlink()
    shutil.rmtree(max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name)))


# --- The same as one process ----------------------------------------------------------------------


@pytest.mark.matrix
def test_four_processes_then_two_then_one(start, tmp_path):
    """With batch norm and accumulated gradients; each goes on from what the one before saved."""
    name, fields = "digits-resnet", ["--batch-size 16 --num-microbatches 2"]
    alone, folder = tmp_path / "alone", tmp_path / "many"
    run_here(name, alone, *fields)
    words = [*tiny.fields(name, *fields), "--json"]

    mesh = ["--parallel", "mesh", "--mesh", "data=2,fsdp=2"]
    four = start(folder, commands(4, folder, name, *words, *mesh))
    assert four.codes() == [0] * 4, four.all_said
    result = json.loads(four.printed(0))
    devices = {"data": 2, "fsdp": 2, "tensor": 1}
    assert result["parallel"] == {"mode": "mesh", "devices": devices, "processes": 4}
    for index in (1, 2, 3):  # XLA may warn of something
        assert four.printed(index) == "" and "step" not in four.said(index)
    assert_same(folder, alone)

    cut_off(folder)
    two = start(folder, commands(2, folder, name, *words, "--parallel", "pmap"))
    assert two.codes() == [0] * 2, two.all_said
    assert "resumed at step 6 of 8" in two.said(0)
    assert_same(folder, alone)

    cut_off(folder)
    assert run_here(name, folder, *fields)["parallel"]["processes"] == 1
    assert_same(folder, alone)


@pytest.mark.matrix
def test_a_layer_cut_up_among_processes(start, tmp_path):
    """Every process has a part of each parameter, two of them the same rows; texts have buckets.

    100 texts are two buckets of 40 or more; each process compiles a step for each.
    """
    # The gradient of a key's bias is 0 but for rounding, which Adam would make as large as others.
    name = "intents-srl"
    fields = ["--batch-size 40 --model.dropout-rate 0 --model.num-layers 1 --optim.epsilon 1e-5"]
    run_here(name, tmp_path / "alone", *fields)
    folder, mesh = tmp_path / "many", ["--parallel", "mesh", "--mesh", "fsdp=2,tensor=2"]
    job = start(folder, commands(4, folder, name, *tiny.fields(name, *fields), *mesh))
    assert job.codes() == [0] * 4, job.all_said
    assert_same(folder, tmp_path / "alone")


def test_two_players(start, tmp_path):
    """A GAN, in two processes with two devices each."""
    name, fields = "digits-gan", ["--batch-size 16"]
    run_here(name, tmp_path / "alone", *fields)
    folder, words = tmp_path / "many", [*tiny.fields(name, *fields), "--parallel", "shard_map"]
    job = start(folder, commands(2, folder, name, *words), JAX_NUM_CPU_DEVICES="2")
    assert job.codes() == [0] * 2, job.all_said
    assert_same(folder, tmp_path / "alone")


def test_each_reads_only_its_rows(start, tmp_path):
    """The first quarter and third quarter of a batch that a step cuts in two, and the others."""
    folder, name = tmp_path / "run", "digits-mlp"
    fields = tiny.fields(name, "--batch-size 16 --num-microbatches 2 --parallel shard_map")
    worker = [sys.executable, "-m", "tests.train.rows_worker"]
    job = start(
        folder,
        [
            [*worker, str(tmp_path / f"rows{i}.json"), *command[3:]]
            for i, command in enumerate(commands(2, folder, name, *fields))
        ],
    )
    assert job.codes() == [0] * 2, job.all_said
    rows = [json.loads((tmp_path / f"rows{i}.json").read_text()) for i in range(2)]
    # Batches of 16 in two pieces of 8, of which each process has 4; held-out rows are filled up.
    alone = tiny.recipe(name, "--batch-size 16")
    order = EpochOrder(load(alone.data).train, alone.seed)
    for index, own in enumerate(rows):
        batches = len(own["train"]) // 8
        assert batches >= 8
        expected = order.rows(0, 16 * batches).reshape(batches, 2, 2, 4)[:, :, index]
        assert own["train"] == expected.reshape(-1).tolist()
        assert set(own["eval"]) <= {*range(15 * index, 15 * index + 15), *range(30, 50), 0}


# --- Killed, and stopped --------------------------------------------------------------------------


def slurm_command() -> tuple[list[str], int]:
    """What `slurm.sh` starts, and how many of it."""
    text = (LAUNCH / "slurm.sh").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.M))
    (line,) = re.findall(r"^srun (.*)$", text.replace("\\\n", ""), re.M)
    words = shlex.split(line)
    return words[words.index("python") :], int(asked["nodes"]) * int(asked["ntasks-per-node"])


def jobset_command() -> tuple[list[str], int]:
    """What `jobset.yaml` starts, and how many of it."""
    spec = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())["spec"]
    (job,) = spec["replicatedJobs"]
    pods = job["template"]["spec"]
    assert pods["completions"] == pods["parallelism"] and pods["completionMode"] == "Indexed"
    (container,) = pods["template"]["spec"]["containers"]
    return container["command"], pods["completions"]


def test_the_launch_files_have_one_command():
    slurm, count = slurm_command()
    jobset, pods = jobset_command()
    assert count == pods
    assert jobset[: len(slurm)] == slurm
    where = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    name, workers = where["metadata"]["name"], where["spec"]["replicatedJobs"][0]["name"]
    assert jobset[len(slurm) :] == [
        f"--coordinator={name}-{workers}-0-0.{name}:1234",
        f"--num-processes={pods}",
        "--process-id=$(JOB_COMPLETION_INDEX)",
    ]


def as_in_jobset(folder: Path) -> list[list[str]]:
    """The command of each pod of `jobset.yaml`, with names of here."""
    words, count = jobset_command()
    place = f"--coordinator=localhost:{free_port()}"

    def local(word: str, index: int) -> str:
        word = re.sub(r"^--coordinator=.*", place, word).replace(SHARED, str(folder))
        return {"python": sys.executable}.get(word, word).replace(
            "$(JOB_COMPLETION_INDEX)", str(index)
        )

    return [[local(word, index) for word in words] for index in range(count)]


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory) -> dict:
    """The result of `slurm.sh`, with an `srun` that starts the processes here."""
    folder = tmp_path_factory.mktemp("slurm") / "run"
    script = folder.with_name("slurm.sh")
    script.write_text((LAUNCH / "slurm.sh").read_text().replace(SHARED, str(folder)))
    _, count = slurm_command()
    srun = folder.with_name("srun")
    srun.write_text(
        "#!/bin/bash\n"
        "while [[ $1 == --* ]]; do shift; done\n"
        f'for i in $(seq 0 {count - 1}); do SLURM_PROCID=$i SLURM_LOCALID=0 "$@" & done\n'
        f"for i in $(seq {count}); do wait -n || exit; done\n"
    )
    srun.chmod(0o755)
    job = start(
        folder,
        [["bash", str(script)]],
        PATH=os.pathsep.join([str(srun.parent), str(Path(sys.executable).parent), os.defpath]),
        SLURM_JOB_ID=str(free_port() - FIRST_PORT),  # from which JAX makes the port
        SLURM_NTASKS=str(count),
        SLURM_STEP_NODELIST="localhost",
        SLURM_STEP_NUM_NODES=str(count),
        **OPTIMISED,
    )
    assert job.codes() == [0], job.all_said
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
def test_killed_and_stopped_and_started_again(start, tmp_path, undisturbed):
    """Process 1 is killed, then process 0, then process 1 gets a SIGTERM; the last life ends."""
    assert undisturbed["passed"] and undisturbed["parallel"]["processes"] == 2
    folder, every = tmp_path / "run", 200  # the recipe's steps between checkpoints
    for life, killed in enumerate((1, 0)):
        job = start(folder, as_in_jobset(folder), **OPTIMISED)
        job.wait_for_step(every * (life + 1) + 50)
        job.processes[killed].kill()
        codes = job.codes(60)
        assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, 1), job.all_said
        assert re.search(LOST.format(killed, 2), job.said(1 - killed)), job.all_said
        assert "Traceback" not in job.all_said
    job = start(folder, as_in_jobset(folder), **OPTIMISED)
    job.wait_for_step(every * 3 + 50)
    job.processes[1].terminate()
    assert job.codes(60) == [0, 0], job.all_said
    (stopped,) = re.findall(r"^stopped at step (\d+) of 1000 and saved", job.said(0), re.M)
    assert (folder / "checkpoints" / stopped).is_dir()
    assert "Traceback" not in job.all_said

    job = start(folder, as_in_jobset(folder), **OPTIMISED)
    assert job.codes() == [0, 0], job.all_said
    assert f"resumed at step {stopped} of 1000" in job.said(0)
    result = json.loads((folder / "result.json").read_text())
    assert result["params_sha256"] == undisturbed["params_sha256"]
    assert result["metrics"] == undisturbed["metrics"]
    steps = [row["step"] for row in metric_log.read(folder)]
    assert steps == sorted(set(steps))


def test_a_loss_that_is_not_finite_ends_all(start, tmp_path):
    folder, name = tmp_path / "run", "digits-mlp"
    fields = tiny.fields(name, "--batch-size 16 --optim.peak-lr 1e30 --parallel pmap")
    job = start(folder, commands(2, folder, name, *fields))
    assert job.codes() == [1, 1], job.all_said
    lines = [job.said(i).strip().splitlines()[-1] for i in range(2)]
    assert lines[0] == lines[1] and "its batch is in" in lines[0], job.all_said
    (batch,) = (folder / "nonfinite").iterdir()
    assert np.load(batch)["targets"].size == 16  # the rows of both


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([[], ["--seed", "1"]], "processes 0 and 1 disagree on the command: seed: 0, 1"),
        ([["--batch-size", "15"]] * 2, "batch_size=15 cannot be shared by 2 devices"),
    ],
)
def test_a_mistake_is_one_line_on_all(start, tmp_path, fields, message):
    folder, name = tmp_path / "run", "digits-mlp"
    each = zip(commands(2, folder, name, "--parallel", "pmap"), fields, strict=True)
    job = start(folder, [[*command, *more] for command, more in each])
    assert job.codes() == [2, 2], job.all_said
    for index in range(2):
        assert job.said(index).startswith(f"error: {message}") and job.printed(index) == ""
        assert job.said(index).count("\n") == 1
    assert not folder.exists()


def test_a_mistake_that_only_one_can_see(start, tmp_path):
    """Process 0 alone looks into the run folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.txt").touch()
    job = start(folder, commands(2, folder, "digits-mlp", "--parallel", "pmap"))
    assert job.codes() == [2, 2], job.all_said
    assert job.said(0) == job.said(1) != ""
    assert "is not empty and holds no run" in job.said(0)
