"""Plans of small and large models, by the vendors' compilers.

`benchmarks/results/plan.json` holds those of the documentation; where a change of them is meant,
write it again: `python -m benchmarks plan`.
"""

import json

import pytest

from benchmarks import plan
from tests.aot.compilers import marks
from train.cli import main
from zoo.registry import config

pytestmark = [pytest.mark.aot, pytest.mark.timeout(1200)]


def needs(name: str):
    """A target, skipped where its compiler is not installed."""
    return pytest.param(name, marks=marks(name))


@pytest.fixture
def planned(capsys):
    def run(words: str) -> tuple[int, dict]:
        capsys.readouterr()
        code = main(["plan", *words.split(), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else {"error": err}

    return run


@pytest.mark.parametrize("where", [needs("h100x8"), needs("v5e:2x4")])
def test_a_small_model_on_eight_devices(planned, where):
    """Its state lies in eighths; parameters are gathered, and gradients summed."""
    code, found = planned(f"gpt-nano --target {where} --model.num-layers 2")
    assert code == 0, found
    assert found["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1}
    state = 3 * 4 * found["parameters"]  # with Adam's averages, in float32
    assert state / 8 < found["bytes"]["arguments"] < state / 7 + 200_000  # tiles are filled up
    parts = found["bytes"]
    assert parts["total"] == (
        parts["arguments"] + parts["temporaries"] + parts["outputs"] - parts["aliases"]
    )
    # All matrices in bfloat16; a GPU's compiler gathers many at once.
    assert found["collectives"]["all-gather"]["bytes"] > 1.9 * found["parameters"]
    # NVIDIA's compiler sums and cuts the gradients in one go; Google's sums them whole first.
    assert ("reduce-scatter" if where == "h100x8" else "all-reduce") in found["collectives"]
    assert found["flops"]["step"] == found["flops"]["model"] > 0
    assert 0 < found["estimate"]["mfu"] <= 1


@pytest.mark.parametrize("where", [needs("h100x1")])
def test_what_does_not_fit_says_where_it_would(planned, where):
    """96 GB of state on one GPU: more of them hold it."""
    code, found = planned(f"llama-8b --target {where} --window 1024")
    assert code == 3, found
    assert not found["fits"]
    assert found["bytes"]["arguments"] > found["usable_bytes"]
    assert found["instead"]["fits"]
    assert found["instead"]["target"] in ("h100x2", "h100x4", "h100x8")
    assert found["tried"][-1]["target"] == found["instead"]["target"]


@pytest.mark.parametrize("where", [needs("v5p:8x8x8")])
def test_the_largest_model(planned, where):
    """175 billion parameters on 512 chips: in two minutes, in 8 GB, with the recorded bytes."""
    code, found = planned(plan.PLANS["gpt3-175b"])
    recorded = plan.read()["gpt3-175b"]
    assert code == 0, found
    assert found["target"] == where
    assert found["parameters"] == recorded["parameters"] > 174e9
    # The seconds of all cores are at least those of an idle machine's clock.
    assert min(found["compile_seconds"], found["compile_cpu_seconds"]) < 120
    assert found["peak_memory_bytes"] < 8e9
    assert found["bytes"]["total"] == pytest.approx(recorded["bytes"]["total"], rel=0.1)
    assert found["flops"] == recorded["flops"]
    assert found["collectives"].keys() == recorded["collectives"].keys()
    for kind, moved in recorded["collectives"].items():
        assert found["collectives"][kind]["bytes"] == pytest.approx(moved["bytes"], rel=0.1)


@pytest.mark.parametrize("name", plan.PLANS)
def test_every_plan_is_recorded(name):
    """And fits, with the parameters that its model has."""
    recorded = plan.read()[name]
    assert recorded["command"] == f"python -m train plan {plan.PLANS[name]}"
    assert recorded["fits"]
    assert recorded["bytes"]["total"] < recorded["usable_bytes"]
    model = config(recorded["name"])
    assert recorded["remat"] == model.remat
