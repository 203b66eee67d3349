"""A run that diverges: it stops at that step, keeps the batch, and writes no worse checkpoint."""

import json
import re
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.train import tiny
from train import loop, metric_log
from train.cli import main
from train.data import train_batches
from train.step import Program

# Gradient descent on a quadratic with a rate far above 2 / its curvature: the error grows by about
# the same factor every step, until its square is too large for float32.
DIVERGES = tiny.fields(
    "linear-diabetes", "--optim.peak-lr 300 --steps 40 --checkpoint.every 2 --eval-every 40"
)


@pytest.fixture(scope="module")
def first_bad_step() -> tuple[int, dict[str, np.ndarray]]:
    """The step whose metrics are the first that are not finite, and its batch: by hand."""
    recipe = tiny.recipe("linear-diabetes", *DIVERGES)
    task, objects = loop.build(recipe)
    program = Program(objects)
    batches = train_batches(task.data.train, batch_size=recipe.batch_size, seed=recipe.seed)
    for step, batch in enumerate(islice(batches, 40), start=1):
        if step == 1:
            program.compile_train(task.train_step, batch)
        metrics = jax.device_get(program.train(batch))
        if not all(np.isfinite(value) for value in metrics.values()):
            return step, batch
    raise AssertionError("did not diverge")


def end(capsys, folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and the lines on standard error that tell of an error."""
    code = main(["run", "linear-diabetes", "--workdir", str(folder), *words])
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return code, "\n".join(line for line in err.splitlines() if line.startswith("error"))


def checkpoints(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "checkpoints").rglob("*"))
        if path.is_file()
    }


def test_a_run_that_diverges_stops_at_that_step(capsys, tmp_path, first_bad_step):
    step, batch = first_bad_step
    assert step > 5  # or nothing before it could have been saved
    folder = tmp_path / "run"
    code, said = end(capsys, folder, *DIVERGES)
    assert code == 1
    saved = folder / "nonfinite" / f"step-{step}.npz"
    assert re.fullmatch(
        rf"error: train/(loss|rmse|grad_norm) is (inf|nan) at step {step}; its batch is in "
        rf"{re.escape(str(saved))}, .*--optim.peak-lr.*",
        said,
    )
    with np.load(saved) as found:
        assert set(found) == set(batch)
        assert all(np.array_equal(found[name], batch[name]) for name in batch)
    # No later checkpoint, no result; the log ends with the last step that was sound.
    newest = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert newest == (step - 1) // 2 * 2
    assert not (folder / "result.json").exists()
    assert [row["step"] for row in metric_log.read(folder)] == list(range(1, step))


def test_the_same_command_replays_it(capsys, tmp_path, first_bad_step):
    step, _ = first_bad_step
    folder = tmp_path / "run"
    first = end(capsys, folder, *DIVERGES)
    before = checkpoints(folder)
    saved = (folder / "nonfinite" / f"step-{step}.npz").read_bytes()
    assert end(capsys, folder, *DIVERGES) == first
    assert (folder / "nonfinite" / f"step-{step}.npz").read_bytes() == saved
    assert checkpoints(folder) == before  # the earlier ones are intact
    assert main(["eval", str(folder), "--json"]) == 0
    newest = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert json.loads(capsys.readouterr().out)["step"] == newest


def test_the_metrics_of_a_step_are_all_looked_at_before_it_is_saved(capsys, tmp_path):
    """One step is usually in flight; a save waits for it."""
    folder = tmp_path / "run"
    code, said = end(
        capsys, folder, *DIVERGES, "--checkpoint.every", "1", "--checkpoint.keep", "99"
    )
    assert code == 1
    step = int(said.split(" at step ")[1].split(";")[0])
    saved = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert saved == list(range(1, step))


def test_an_update_that_overflows_is_found_by_the_evaluation(capsys, tmp_path):
    """The loss of a step is that before its update: after the last one there is none to look at."""
    folder = tmp_path / "run"
    words = tiny.fields("linear-diabetes", "--steps 1 --optim.peak-lr 3e38")
    code, said = end(capsys, folder, *words)
    assert code == 1
    assert re.match(r"error: eval/predicted is -?(inf|nan) at step 1; its batch is in ", said)
    assert (folder / "nonfinite/step-1.npz").exists()
    assert not list((folder / "checkpoints").iterdir())
    assert not (folder / "result.json").exists()


def test_the_same_for_a_classifier(capsys, tmp_path):
    folder = tmp_path / "run"
    words = tiny.fields(
        "logistic-cancer", "--steps 1 --optim.name gradient-descent --optim.peak-lr 3e38"
    )
    assert main(["run", "logistic-cancer", "--workdir", str(folder), *words]) == 1
    err = capsys.readouterr().err
    assert re.search(r"^error: eval/\w+ is -?(inf|nan) at step 1; ", err, re.M)
    assert "Traceback" not in err
