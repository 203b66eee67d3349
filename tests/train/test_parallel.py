"""One training step, four ways to run it: the same losses, parameters and checkpoints."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import pytest

from tests.conftest import ROOT
from train.cli import main
from train.errors import UserError
from train.mesh import mesh_sizes
from train.parallel import ShardMap, check_batch, layout
from train.recipes import RECIPES
from train.simulated import DEVICES, give_threads

# What eight devices can share: sixteen rows, more where a step cuts its batch in pieces.
SIXTEEN = "--batch-size 16"
FIELDS = {"digits-wgan-gp": "--batch-size 32", "word2vec": f"{SIXTEEN} --task.update-size 8"}
# The gradient of a key's bias is 0 but for rounding, which Adam would make as large as any other.
WITH_KEYS = ("intents-srl", "bible-bert", "bible-gpt", "cloze-qa", "translate-en-es", "synopsis")
FIELDS |= dict.fromkeys(WITH_KEYS, f"{SIXTEEN} --optim.epsilon 1e-5")


def assert_on_eight_devices(*arguments: str) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.parallel_worker", *arguments],
        env=os.environ | {"PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.matrix
@pytest.mark.parametrize("name", RECIPES)
def test_twenty_steps_are_those_of_one_device(name):
    """Without dropout, for which every device of `pmap` and `shard_map` has a key of its own."""
    fields, model = FIELDS.get(name, SIXTEEN).split(), RECIPES[name].load().model
    if hasattr(model, "dropout_rate"):
        fields += ["--model.dropout-rate", "0"]
    if "num_layers" in {field.name for field in dataclasses.fields(model)}:
        fields += ["--model.num-layers", "1"]  # compiling four programs takes nearly all the time
    assert_on_eight_devices("equal", name, *fields)


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["digits-resnet", "synopsis"])
def test_an_evaluation_is_that_of_one_device(name):
    assert_on_eight_devices("answers", name, "--eval-batch-size", "13")


@pytest.mark.matrix
def test_accumulated_gradients_and_averaged_weights_too():
    """With batch norm, whose moments are those of a piece of the batch on all devices."""
    pieces = "--batch-size 32 --num-microbatches 2 --optim.ema-decay 0.9"
    assert_on_eight_devices("equal", "digits-resnet", *pieces.split())


@pytest.mark.matrix
def test_the_balance_of_experts_is_that_of_the_whole_batch():
    fields = "--model.num-experts 4 --model.num-kv-heads 2 --task.balance-weight 1"
    assert_on_eight_devices("equal", "bible-llama", *SIXTEEN.split(), *fields.split())


@pytest.mark.matrix
def test_a_run_goes_on_under_any_mode_on_any_number_of_devices(tmp_path):
    """8, 4, 1, 8 and 4 devices; batch statistics and averaged weights are among what is saved."""
    assert_on_eight_devices("moved", str(tmp_path / "c"), "digits-resnet", *SIXTEEN.split())


def test_where_parameters_lie():
    assert_on_eight_devices("placed")


def test_what_devices_draw():
    assert_on_eight_devices("draws")


def test_what_a_step_sends():
    assert_on_eight_devices("sent")


@pytest.mark.parametrize(("devices", "threads"), [("8", "128"), ("1", None), ("", None)])
def test_simulated_devices_have_threads(monkeypatch, devices, threads):
    # A dictionary of its own: with other threads the runs of later tests would have other bits.
    environment = {DEVICES: devices}
    monkeypatch.setattr(os, "environ", environment)
    give_threads()
    assert environment.get("PJRT_NPROC") == threads
    give_threads(distributed=True)
    assert int(environment["PJRT_NPROC"]) >= 16
    environment["PJRT_NPROC"] = "5"  # what the user says stays
    give_threads()
    assert environment["PJRT_NPROC"] == "5"


def test_from_the_command_line(run_cli, tmp_path):
    """What was cut off under one mode goes on under another, and the result names the last."""
    options = ["--json", "--task.baseline", "none", "--steps", "40", "--batch-size", "16"]
    options += ["--checkpoint.every", "5", "--model.dropout-rate", "0"]
    options += ["--data.train-split", "train[:200]", "--data.eval-split", "test[:50]"]

    def run(folder: str, *more: str):
        command = ["run", "digits-mlp", "--workdir", folder, *options, *more]
        return run_cli(*command, JAX_NUM_CPU_DEVICES="4")

    refused = run("r", "--parallel", "mesh", "--mesh", "tensor=2")
    assert (refused.code, refused.stdout) == (2, "")
    assert "--mesh tensor=2 is of 2 devices, and here are 4" in refused.stderr
    assert not (tmp_path / "r").exists()

    first = run("r", "--parallel", "mesh", "--mesh", "data=2,tensor=2")
    assert first.code == 0, first.stderr
    how = {"mode": "mesh", "devices": {"data": 2, "fsdp": 1, "tensor": 2}, "processes": 1}
    assert json.loads(first.stdout)["parallel"] == how
    for name in ("result.json", "report.html"):
        (tmp_path / "r" / name).unlink()
    shutil.rmtree(tmp_path / "r" / "checkpoints" / "40")

    gone_on = run("r", "--parallel", "shard_map")
    assert gone_on.code == 0, gone_on.stderr
    assert "resumed at step 35 of 40" in gone_on.stderr
    result, alone = json.loads(gone_on.stdout), json.loads(run("one").stdout)
    assert result["parallel"] == {"mode": "shard_map", "devices": {"data": 4}, "processes": 1}
    assert alone["parallel"] == {"mode": "jit", "devices": {}, "processes": 1}
    assert result["metrics"]["eval/loss"] == pytest.approx(alone["metrics"]["eval/loss"], rel=1e-5)


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("data=3", r"--mesh data=3 is of 3 devices, and here are 8; data=8 would fit"),
        ("data=2,tensors=4", "no mesh axis 'tensors'; did you mean 'tensor'"),
        ("data=two", "'data=two' has not the form data=2"),
        ("data=0", "'data=0' has not the form data=2"),
        ("data", "'data' has not the form data=2"),
        ("", "no mesh axis ''"),
    ],
)
def test_a_wrong_mesh(mesh, message):
    with pytest.raises(UserError, match=message):
        mesh_sizes(mesh, 8)


def test_sizes_of_a_mesh():
    assert mesh_sizes(None, 8) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert mesh_sizes("tensor=2, fsdp=4", 8) == {"data": 1, "fsdp": 4, "tensor": 2}


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_only_a_mesh_has_a_mesh(mode):
    with pytest.raises(UserError, match=f"--parallel {mode} has no mesh; use --parallel mesh"):
        layout(mode, "data=1")


def test_a_batch_that_devices_cannot_share():
    with pytest.raises(UserError, match=r"batch_size=12 .* by 1 devices.* multiple of 5"):
        check_batch(ShardMap(jax.devices()), 12, pieces=5)
    check_batch(ShardMap(jax.devices()), 15, pieces=5)


def test_the_command_line_says_what_is_wrong(capsys, tmp_path):
    arguments = ["run", "digits-mlp", "--workdir", str(tmp_path / "r")]
    assert main([*arguments, "--parallel", "jot"]) == 2
    assert "jot" in capsys.readouterr().err
    assert main([*arguments, "--parallel", "mesh", "--mesh", "model=1"]) == 2
    assert capsys.readouterr().err.startswith("error: no mesh axis 'model'")
    assert not (tmp_path / "r").exists()
