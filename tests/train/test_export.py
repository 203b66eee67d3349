"""Exported models: StableHLO runs without this package, safetensors holds every number."""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export as jax_export
from safetensors import safe_open

from tests.close import assert_close
from tests.train import tiny
from train import loop
from train.cli import main
from train.config import from_json
from train.export import PLATFORMS, safetensors, stablehlo
from train.progress import standard_error
from train.recipes import RECIPES
from train.runfolder import RunFolder
from train.step import Objects
from train.task import Task

ALONE = """
import sys
import numpy as np
from jax import export

artefact, inputs, outputs = sys.argv[1:]
program = export.deserialize(bytearray(open(artefact, "rb").read()))
found = {}
with np.load(inputs) as batches:
    for name in batches:
        for key, value in program.call(batches[name]).items():
            found[f"{name}/{key}"] = np.asarray(value)
np.savez(outputs, **found)
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"zoo", "train", "kernels", "flax"}, loaded
print(*program.platforms)
"""


@pytest.fixture(scope="module", params=["digits-resnet", "linear-diabetes"])
def trained(request) -> tuple[Task, Objects]:
    """A task and its objects, with statistics and an average that differ from where they began."""
    recipe = tiny.recipe(request.param, "--optim.ema-decay 0.5 --optim.warmup-steps 0")
    task, objects = loop.build(recipe)
    for _, leaf in nnx.to_flat_state(nnx.state(objects, (nnx.Param, nnx.BatchStat))):
        leaf[...] = leaf[...] + 0.01
    return task, objects


def test_stablehlo_runs_alone(trained, tmp_path):
    task, objects = trained
    stablehlo(task, objects, tmp_path / "model.stablehlo")
    batches = {f"b{size}": task.data.eval.gather(np.arange(size))["inputs"] for size in (1, 3, 7)}
    np.savez(tmp_path / "inputs.npz", **batches)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, "model.stablehlo", "inputs.npz", "outputs.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cpu", "cuda", "tpu"] == list(PLATFORMS)
    with np.load(tmp_path / "outputs.npz") as found:
        for name, inputs in batches.items():
            expected = task.predict(objects, jnp.asarray(inputs))
            assert {f"{name}/{key}" for key in expected} == {k for k in found if k.startswith(name)}
            for key, value in expected.items():
                assert_close(found[f"{name}/{key}"], value)


def test_stablehlo_takes_raw_inputs_of_any_batch(trained, tmp_path):
    task, objects = trained
    stablehlo(task, objects, tmp_path / "model.stablehlo")
    program = jax_export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    (aval,) = program.in_avals
    example = task.data.eval.gather(np.zeros(1, int))["inputs"]
    assert (aval.dtype, tuple(aval.shape)[1:]) == (example.dtype, example.shape[1:])
    assert not isinstance(aval.shape[0], int)
    with pytest.raises(ValueError):
        program.call(example[..., :-1])


def test_safetensors_holds_every_parameter_and_statistic(trained, tmp_path):
    task, objects = trained
    path = tmp_path / "model.safetensors"
    safetensors(task, objects, path)
    state = nnx.state(task.evaluated(objects), (nnx.Param, nnx.BatchStat))
    state = nnx.to_flat_state(state)
    expected = {".".join(map(str, p)): np.asarray(leaf[...]) for p, leaf in state}
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        found = {name: file.get_tensor(name) for name in expected}
        assert set(file.keys()) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    assert {"standardize.mean", "standardize.std"} <= found.keys()
    config = json.loads(metadata["config"])
    assert from_json(RECIPES[task.recipe.name].load(), config) == task.recipe


def test_safetensors_of_strided_arrays(tmp_path):
    """What lies transposed in memory is written by its values, not by its memory."""
    task, objects = loop.build(tiny.recipe("digits-mlp"))
    kernel = objects["model"].classifier.kernel
    expected = np.asarray(kernel[...]).copy()
    kernel[...] = np.asfortranarray(expected)
    safetensors(task, objects, tmp_path / "w")
    with safe_open(tmp_path / "w", framework="numpy") as file:
        assert np.array_equal(file.get_tensor("model.classifier.kernel"), expected)


def test_what_is_written_is_the_average(tmp_path):
    """A model that is evaluated with averaged weights answers with these when it is exported."""
    words = tiny.fields("digits-mlp", "--optim.ema-decay 0.5")
    folder = tmp_path / "run"
    assert main(["run", "digits-mlp", "--workdir", str(folder), *words]) == 0
    out = tmp_path / "model.stablehlo"
    assert main(["export", str(folder), "--format", "stablehlo", "--out", str(out)]) == 0
    program = jax_export.deserialize(bytearray(out.read_bytes()))
    task, _ = loop.build(tiny.recipe("digits-mlp", "--optim.ema-decay 0.5"))
    held_out = task.data.eval.arrays()
    hits = np.asarray(program.call(held_out["inputs"])["label"]) == held_out["targets"]
    result = json.loads((folder / "result.json").read_text())
    assert abs(hits.mean() - result["metrics"]["eval/accuracy"]) < 1e-9
    assert Path(out).stat().st_size > 10_000

    weights = tmp_path / "model.safetensors"
    assert main(["export", str(folder), "--format", "safetensors", "--out", str(weights)]) == 0
    _, trained, _ = loop.restore(RunFolder(folder), standard_error())
    objects = trained.objects()
    average = objects["optimizer"].averaged(objects["model"]).classifier.kernel
    with safe_open(weights, framework="numpy") as file:
        written = file.get_tensor("model.classifier.kernel")
    assert np.array_equal(written, average[...])
    assert not np.array_equal(written, objects["model"].classifier.kernel[...])
