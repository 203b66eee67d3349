"""Names of hardware to compile for. That it can be compiled for is shown in `tests/aot`."""

import importlib.metadata
import os

import jax
import pytest

from train import targets
from train.errors import UserError
from train.targets import Target, target


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100", Target("h100", "1")),
        ("h100x8", Target("h100", "8")),
        ("v5e", Target("v5e", "2x2")),
        ("v5e:2x4", Target("v5e", "2x4")),
        ("v5p:4x4x4", Target("v5p", "4x4x4")),
        ("tpu7x", Target("tpu7x", "2x2x1")),
    ],
)
def test_names(name, expected):
    assert target(name) == expected


@pytest.mark.parametrize("name", targets.SMALLEST)
def test_a_chip_alone_is_its_smallest_slice(name):
    chosen = target(name)
    shape = f"x{chosen.shape}" if name == "h100" else f":{chosen.shape}"
    assert target(name + shape) == chosen
    assert chosen.platform == ("gpu" if name == "h100" else "tpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5", "no target 'v5'; did you mean 'v5"),
        ("abacus", "no target 'abacus'; there are h100, v4, v5e, v5p, v6e, tpu7x"),
        ("v5e:4", "target 'v5e:4' has not the form of 'v5e:2x2'"),
        ("v5p:2x2", "target 'v5p:2x2' has not the form of 'v5p:2x2x1'"),
        ("v5e:", "target 'v5e:' has not the form of 'v5e:2x2'"),
        ("h100x0", "target 'h100x0' has not the form of 'h100x8'"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(UserError) as caught:
        target(name)
    assert str(caught.value).startswith(message)


def test_environment(monkeypatch):
    """What is there already stays, and the arrays of the process are the CPU's."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_mine=1")
    gpu, tpu = target("h100").environment(), target("v4").environment()
    assert gpu["XLA_FLAGS"].startswith("--xla_of_mine=1 --xla_gpu_autotune_level=0")
    assert "XLA_FLAGS" not in tpu
    assert gpu["JAX_PLATFORMS"] == tpu["JAX_PLATFORMS"] == "cpu"
    assert os.environ["XLA_FLAGS"] == "--xla_of_mine=1"


def test_what_a_program_takes():
    """Twice four numbers in and out; those of one argument are written over by a result."""
    x = jax.ShapeDtypeStruct((4,), "float32")
    compiled = jax.jit(lambda a, b: (a + b, a * b), donate_argnums=0).lower(x, x).compile()
    found = targets.measured(compiled)
    assert (found["argument_bytes"], found["alias_bytes"], found["flops"]) == (32, 16, 8)
    parts = [found[f"{part}_bytes"] or 0 for part in ("argument", "output", "temp")]
    assert found["bytes"] == sum(parts) - 16


def installed(monkeypatch, **versions):
    """Has the machine these packages, and no other."""

    def version(package):
        if package.replace("-", "_") in versions:
            return versions[package.replace("-", "_")]
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_packages_that_are_missing(monkeypatch):
    installed(monkeypatch, jaxlib="0.10.2", jax_cuda12_pjrt="0.10.2")
    with pytest.raises(UserError) as caught:
        target("h100").devices()
    assert str(caught.value) == (
        "h100 needs jax-cuda12-plugin, nvidia-cuda-nvcc-cu12, nvidia-cudnn-cu12; "
        "pip install '.[gpu-aot]'"
    )
    assert target("v5e").missing() == "v5e needs libtpu; pip install '.[tpu-aot]'"


def test_a_plugin_of_another_version(monkeypatch):
    others = {"jax_cuda12_pjrt": "0.10.1", "nvidia_cuda_nvcc_cu12": "12.9"}
    others |= {"nvidia_cudnn_cu12": "9.28", "libtpu": "0.0.42"}
    installed(monkeypatch, jaxlib="0.10.2", jax_cuda12_plugin="0.10.1", **others)
    assert target("h100").missing() == (
        "h100 needs jax-cuda12-plugin in jaxlib's version, 0.10.2, not 0.10.1; "
        "pip install '.[gpu-aot]'"
    )
    assert target("v5e").missing() is None
