"""What a plan asks, tries and says. That steps compile for real is shown in `tests/aot`."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from train.collectives import Moved
from train.config import from_json, to_json
from train.errors import UserError
from train.mesh import MeshLayout, mesh_sizes
from train.plan import command, search
from train.plan.estimate import estimate
from train.plan.presets import preset_recipe, rematerialised, rows_per_device, sizes
from train.plan.search import Request, default_mesh, grid, plan, remedies
from train.plan.step import Case, Steps, held_bytes, lying, wanted
from train.plan.tables import scaled
from train.sync import Sync
from train.targets import Target, target
from train.tasks import task_class

# --- Models without data ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "batch"),
    [
        ("gpt3-175b", "LanguageModel", {"inputs": (2048,), "targets": (2048,)}),
        ("llama-70b", "LanguageModel", {"inputs": (8192,), "targets": (8192,)}),
        ("lstm-lm", "LanguageModel", {"inputs": (64,), "targets": (64,)}),
        ("bert-large", "MaskedWords", {"inputs": (511,), "targets": (511,)}),
        ("resnet50", "Classification", {"inputs": (224, 224, 3), "targets": ()}),
        ("convnet-32-64", "Classification", {"inputs": (28, 28, 1), "targets": ()}),
    ],
)
def test_how_a_model_is_trained(name, task, batch):
    recipe = preset_recipe(name)
    assert task_class(recipe).__name__ == task
    assert {key: shape for key, (shape, _) in sizes(recipe).shapes().items()} == batch
    assert (recipe.compute_dtype, recipe.optim.name) == ("bfloat16", "adamw")


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("gpt-nano", {"num_layers": 1}),
        ("bert-nano", {"num_layers": 1, "vocab_size": 64}),
        ("resnet18-cifar", {"stage_sizes": (1,), "width": 8}),
    ],
)
def test_a_step_on_shapes_alone_is_one_on_arrays(name, smaller):
    """Of every kind: what is planned computes, and nothing of it needs data."""
    recipe = dataclasses.replace(preset_recipe(name), batch_size=4)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **smaller))
    steps = Steps(recipe)
    objects = steps.task(recipe, zoo.Ops()).build(nnx.Rngs(0))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), nnx.state(objects))
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), nnx.state(steps.objects(recipe)))
    batch = {k: jnp.ones(x.shape, x.dtype) for k, x in steps.batch(recipe).items()}
    task = steps.task(recipe, zoo.Ops())
    assert np.isfinite(task.train_step(objects, batch, Sync())["train/loss"])
    assert steps.flops(recipe)["model"] > 0


def test_models_of_other_kinds():
    with pytest.raises(UserError, match="'dcgan-28' is of no kind"):
        preset_recipe("dcgan-28")


def test_rows_of_a_batch():
    assert rows_per_device(preset_recipe("gpt2-xl")) == 2
    assert rows_per_device(preset_recipe("llama-70b")) == 1
    assert rows_per_device(preset_recipe("resnet50")) == 64


def test_rematerialised():
    again = rematerialised(preset_recipe("bert-large"))
    assert again is not None and again.model.remat
    assert rematerialised(again) is None
    assert rematerialised(preset_recipe("resnet50")) is None  # it has no such field


# --- Where it lies ----------------------------------------------------------------------------


@pytest.fixture
def abstract(monkeypatch):
    """Grids of devices that no compiler is asked for."""

    def layout(self, chosen: Target, mesh: str) -> MeshLayout:
        found: Any = object.__new__(MeshLayout)
        sides = mesh_sizes(mesh, search.chips.count(chosen))
        types = (jax.sharding.AxisType.Auto,) * len(sides)
        found.mesh = jax.sharding.AbstractMesh(tuple(sides.values()), tuple(sides), types)
        return found

    monkeypatch.setattr(Steps, "layout", layout)


@pytest.mark.parametrize(
    ("name", "where", "mesh"),
    [
        ("gpt2-xl", "h100x8", "fsdp=8"),
        ("gpt2-xl", "v5e:8x16", "data=2,fsdp=64"),  # 128 does not divide 1600
        ("gpt2-xl", "v5p:2x2x1", "fsdp=4"),
        ("gpt2-xl", "v5p:2x2x2", "data=2,fsdp=4"),  # two sides of three
        ("llama-8b", "v5p:2x2x2", "data=2,fsdp=4"),
        ("llama-8b", "v4:2x2x2", "fsdp=8"),  # 24 GB of 34 were too much
        ("bert-large", "v5e:1x1", "data=1"),
        ("bible-gpt", "v5e:4x4", "data=16"),  # a recipe lies as `run` has it
    ],
)
def test_default_mesh(abstract, name, where, mesh):
    recipe = command.read(name, [])[0].recipe
    assert default_mesh(Steps(recipe), recipe, target(where)) == mesh


def test_bytes_of_a_state(abstract):
    """Of AdamW three numbers a parameter; on eight devices an eighth, but for vectors."""
    recipe = preset_recipe("gpt-nano")
    steps = Steps(recipe)
    objects = steps.objects(recipe)
    number = sum(x.size for x in jax.tree.leaves(nnx.state(objects, nnx.Param)))
    one = held_bytes(lying(steps.layout(target("v5e:1x1"), "data=1"), objects))
    assert one == pytest.approx(3 * 4 * number, rel=1e-3)
    placed = lying(steps.layout(target("v5e:2x4"), "fsdp=8"), objects)
    assert one / 8 <= held_bytes(placed) < one / 7


def test_grids():
    assert grid(8, fsdp=8) == "fsdp=8"
    assert grid(8, fsdp=2, tensor=2) == "data=2,fsdp=2,tensor=2"
    assert grid(1, fsdp=1) == "data=1"


# --- What is tried ----------------------------------------------------------------------------


@pytest.fixture
def trying(abstract, monkeypatch):
    """A plan in which what fits is decided by a test; and the cases that were compiled."""
    cases: list[Case] = []

    def run(request: Request, fits) -> tuple[dict, list[Case]]:
        def compiled(self, case: Case):
            cases.append(case)
            known = {"target": str(case.target), "mesh": {}, "batch": {}, "bytes": {}}
            known |= {"num_microbatches": 1, "remat": True}
            return {**known, "fits": fits(case)}

        monkeypatch.setattr(Steps, "compiled", compiled)
        return plan(request, lambda text: None), cases

    return run


def asked(name: str, where: str, **fields) -> Request:
    return Request(preset_recipe(name), target(where), fixed_batch=False, **fields)


def test_what_fits_is_compiled_once(trying):
    found, cases = trying(asked("bert-large", "v5e:4x4"), lambda case: True)
    assert [str(case) for case in cases] == ["v5e:4x4, fsdp=16, batch 64"]
    assert (found["fits"], found["tried"], found["instead"]) == (True, [], None)


def test_what_is_tried_where_it_does_not_fit(trying):
    """The same devices otherwise, and then more of them."""
    found, cases = trying(asked("bert-large", "v5e:4x4"), lambda case: case.target.shape == "8x8")
    assert [str(case) for case in cases] == [
        "v5e:4x4, fsdp=16, batch 64",
        "v5e:4x4, fsdp=16, batch 64, rematerialised",
        "v5e:4x4, fsdp=16, batch 64, 4 micro-batches, rematerialised",
        "v5e:4x4, fsdp=8,tensor=2, batch 64, rematerialised",
        "v5e:4x4, fsdp=4,tensor=4, batch 64, rematerialised",
        "v5e:4x4, fsdp=2,tensor=8, batch 64, rematerialised",
        "v5e:4x8, fsdp=32, batch 128, rematerialised",
        "v5e:8x8, fsdp=64, batch 256, rematerialised",
    ]
    assert not found["fits"]
    assert [row["fits"] for row in found["tried"]] == [False] * 6 + [True]
    assert found["instead"]["target"] == "v5e:8x8"


def test_a_chosen_batch_and_mesh(trying):
    request = dataclasses.replace(
        asked("gpt2-xl", "h100x8", mesh="data=8"),
        recipe=dataclasses.replace(preset_recipe("gpt2-xl"), batch_size=32),
        fixed_batch=True,
    )
    found, cases = trying(request, lambda case: "fsdp=8" in case.mesh)
    assert [case.mesh for case in cases] == ["data=8", "fsdp=8"]
    assert all(case.recipe.batch_size == 32 for case in cases)
    assert found["instead"]["fits"]


def test_nothing_fits(trying):
    found, cases = trying(asked("gpt2-xl", "h100x4"), lambda case: False)
    assert (found["fits"], found["instead"]) == (False, None)
    assert str(cases[-1].target) == "h100x8"


def test_the_smallest_slice(trying):
    request = asked("llama-70b", "v5p:8x8x8", smallest=True)
    found, cases = trying(request, lambda case: search.chips.count(case.target) >= 32)
    assert [case.target.shape for case in cases] == ["2x2x1", "2x2x2", "2x4x4"]
    assert (found["target"], found["fits"]) == ("v5p:2x4x4", True)
    assert [row["target"] for row in found["tried"]] == ["v5p:2x2x1", "v5p:2x2x2"]


def test_trying_ends(trying, monkeypatch):
    monkeypatch.setattr(search, "LIMIT", -1.0)
    found, cases = trying(asked("bert-large", "v5e:4x4"), lambda case: False)
    assert len(cases) == 1
    assert found["instead"] is None


def test_remedies_leave_out_what_is_so_already(abstract):
    recipe = preset_recipe("gpt2-xl")  # rematerialised, one row a device
    case = Case(dataclasses.replace(recipe, batch_size=2), target("h100x2"), "fsdp=2")
    tried = remedies(Steps(recipe), asked("gpt2-xl", "h100x2"), case)
    assert [str(case.target) for case in tried] == ["h100x4", "h100x8"]


# --- What is said -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (16.5G) exceeds available HBM (15.75G).",
            {"temporaries": int(16.5 * 2**30)},
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 2.00T of 95.74G hbm.",
         {"total": 2 * 2**40}),
        ("RESOURCE_EXHAUSTED", {}),
    ],
)  # fmt: skip
def test_what_a_compiler_wanted(message, expected):
    assert wanted(message) == expected


def test_estimate():
    """By hand, for two chips that each do 1 operation, move 2 bytes and send 4, a second."""
    taken = {"arguments": 10, "outputs": 6, "temporaries": 4}
    moved = {"all-gather": Moved(count=2, bytes=8, wire=12, static=1)}
    chip = dataclasses.replace(
        search.chips.CHIPS["v5e"], flops=1.0, memory_bandwidth=2.0, link_bandwidth=4.0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(search.chips.CHIPS, "v5e", chip)
        found = estimate(target("v5e:1x1"), 2, taken, {"step": 80, "model": 60}, moved)
    assert found == {
        "seconds": {"compute": 40.0, "memory": 20.0, "links": 3.0},
        "step_seconds": 40.0,
        "bound": "compute",
        "mfu": 0.75,
    }


def test_scaled():
    assert [scaled(n, "B") for n in (0, 999, 4.256e9, 2e18)] == ["0 B", "999 B", "4.26 GB", "2 EB"]


# --- The command ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gpt3"], "no recipe or model 'gpt3'; did you mean 'gpt"),
        (["gpt2-xl"], "--target is missing; there are h100x1 to h100x8, v4:2x2x1 to"),
        (["gpt2-xl", "--target", "v9:2x2"], "--target v9:2x2: no target 'v9'"),
        (["gpt2-xl", "--target", "h100x8", "--model.dimm", "8"], "unrecognized options: --mod"),
        (["resnet50", "--target", "h100x8", "--window", "8"], "resnet50 learns from no windows of"),
        (["vae", "--target", "h100x8"], "model 'vae' is of no kind to be planned"),
    ],
)  # fmt: skip
def test_mistakes(call, words, message):
    code, out, err = call("plan", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}"), err
    assert len(err.splitlines()) == 1


def test_a_compiler_that_is_not_installed(call, monkeypatch):
    monkeypatch.setattr(Target, "missing", lambda self: "v5e needs libtpu; pip install it")
    assert call("plan", "gpt-nano", "--target", "v5e:2x2") == (
        2,
        "",
        "error: v5e needs libtpu; pip install it\n",
    )


def test_what_is_read():
    options, fixed = command.read("gpt2-xl", ["--target", "h100x8", "--window=512"])
    assert (options.recipe.task.window, options.target, fixed) == (512, "h100x8", False)
    for words in (["--mesh", "data=2,fsdp=4"], ["--mesh=data=2,fsdp=4"]):
        assert command.read("gpt2-xl", words)[0].mesh == "data=2,fsdp=4"
    assert command.read("gpt2-xl", ["--batch-size", "64"])[1]
    assert command.read("gpt2-xl", ["--batch_size=64"])[1]
    assert command.read("bible-gpt", [])[1]  # a recipe has one of its own


FOUND = {
    "name": "gpt-nano",
    "target": "v5e:2x4",
    "devices": 8,
    "mesh": {"data": 1, "fsdp": 8, "tensor": 1},
    "parameters": 817920,
    "batch": {"inputs": [256, 64], "targets": [256, 64]},
    "num_microbatches": 1,
    "remat": False,
    "compute_dtype": "bfloat16",
    "fits": True,
    "usable_bytes": 16_000_000_000,
    "bytes": {"arguments": 1_350_000, "total": 9_580_000},
    "compile_seconds": 13.5,
    "compile_cpu_seconds": 20.5,
    "flops": {"step": 85_400_000_000, "model": 85_400_000_000},
    "collectives": {"all-gather": {"count": 18, "bytes": 1620000, "wire": 1420000, "static": 18}},
    "estimate": {
        "seconds": {"compute": 5.42e-5, "memory": 2.79e-5, "links": 1.44e-5},
        "step_seconds": 5.42e-5,
        "bound": "compute",
        "mfu": 1.0,
    },
    "tried": [],
    "instead": None,
    "peak_memory_bytes": 10**9,
}
UNFIT = {
    **{key: FOUND[key] for key in list(FOUND)[:9]},
    "fits": False,
    "usable_bytes": 16_000_000_000,
    "bytes": {"arguments": 20_000_000_000},
    "tried": [{**FOUND, "remat": True, "num_microbatches": 4}],
    "instead": {**FOUND, "remat": True, "num_microbatches": 4},
}


@pytest.fixture
def answering(monkeypatch):
    """A process with a compiler that says what a test wants it to."""

    def program(*lines: str, code: int = 0):
        run = subprocess.Popen
        text = "\n".join(lines)
        script = f"import sys; sys.stdin.read(); print({text!r}); sys.exit({code})"
        monkeypatch.setattr(Target, "missing", lambda self: None)
        monkeypatch.setattr(
            command.subprocess, "Popen",
            lambda words, **options: run([sys.executable, "-c", script], **options),
        )  # fmt: skip

    return program


def test_what_fits(call, answering):
    answering(json.dumps({"say": "compiling"}), json.dumps({"plan": FOUND}))
    code, out, err = call("plan", "gpt-nano", "--target", "v5e:2x4")
    assert (code, err) == (0, "compiling\n")
    assert out.startswith("gpt-nano on v5e:2x4: fits\n")
    for words in ("817,920", "8, fsdp=8", "9.58 MB", "85.4 GFLOP", "100% at most", "1.62 MB"):
        assert words in out
    code, out, _ = call("plan", "gpt-nano", "--target", "v5e:2x4", "--json")
    assert (code, json.loads(out)) == (0, FOUND)


def test_what_does_not_fit(call, answering):
    answering(json.dumps({"plan": UNFIT}))
    code, out, _ = call("plan", "gpt-nano", "--target", "v5e:2x4")
    assert code == 3
    assert "does NOT fit" in out
    assert out.splitlines()[-1] == (
        "this fits: v5e:2x4, fsdp=8, rematerialised (--model.remat), --num-microbatches 4, "
        "9.58 MB a device"
    )


def test_a_mistake_that_only_the_compiler_finds(call, answering):
    answering(json.dumps({"error": "--mesh fsdp=7 does not divide"}))
    assert call("plan", "gpt-nano", "--target", "v5e") == (
        2,
        "",
        "error: --mesh fsdp=7 does not divide\n",
    )


def test_a_compiler_that_breaks_down(call, answering):
    answering(json.dumps({"say": "compiling"}), code=7)
    code, out, err = call("plan", "gpt-nano", "--target", "v5e:2x4")
    assert (code, out) == (1, "")
    assert "error: compiling for v5e:2x4 ended with 7:" in err


def test_help(call):
    code, out, _ = call("plan", "--help")
    assert code == 0
    assert all(word in out for word in ("gpt3-175b", "bible-gpt", "v5p:8x8x8"))
    assert call("plan")[0] == 2
    code, out, _ = call("plan", "gpt-nano", "--help")
    assert code == 0
    assert all(flag in out for flag in ("--target", "--mesh", "--smallest", "--model.num-layers"))


def test_the_request_is_the_whole_recipe():
    """What the process is told is enough to build the same recipe there."""
    options, _ = command.read("gpt2-xl", ["--model.num-layers", "2", "--task.window", "128"])
    assert from_json(preset_recipe("gpt2-xl"), to_json(options.recipe)) == options.recipe
