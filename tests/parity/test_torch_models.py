"""Models against PyTorch twins: most written here with `torch.nn`, ResNet from transformers.

Small random weights, the same on both sides; the output and every gradient must agree.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flax import nnx
from jax import Array

import zoo
from tests.close import assert_close
from tests.zoo.compare import random, randomized, run, weighting
from zoo.models.convnet import ConvNetConfig
from zoo.models.linear import LinearRegressionConfig, LogisticRegressionConfig
from zoo.models.mlp import MLPConfig
from zoo.models.resnet import BasicBlock, ResNet, ResNetConfig

torch = pytest.importorskip("torch")

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
STATISTICS = {"mean": "running_mean", "var": "running_var"}


def to_torch(parameter: Array, name: str) -> Any:
    """A parameter in PyTorch's axes: kernels [*window, in, out] become [out, in, *window]."""
    array = np.asarray(parameter)
    if name == "kernel":
        array = np.moveaxis(array, (-1, -2), (0, 1))
    return torch.tensor(array)


def to_ours(tensor: Any, name: str) -> np.ndarray:
    """The way back."""
    array = tensor.detach().numpy()
    return np.moveaxis(array, (0, 1), (-1, -2)) if name == "kernel" else array


def variables(model: nnx.Module, twins: dict) -> Iterator[tuple[str, str, nnx.Variable, Any]]:
    """(path, last name, our variable, the PyTorch module that owns its twin)."""
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        owner = ".".join(map(str, path[:-1]))
        yield ".".join(map(str, path)), str(path[-1]), variable, twins[owner]


def assert_same(model: nnx.Module, twin: Any, twins: dict, x: Array) -> None:
    """Copy the weights over; outputs, gradients and, after it, evaluation mode must agree."""
    for _, name, variable, owner in variables(model, twins):
        target = getattr(owner, {**LEAVES, **STATISTICS}[name])
        with torch.no_grad():
            target.copy_(to_torch(variable[...], name))
    images = np.moveaxis(np.asarray(x), -1, 1) if x.ndim == 4 else np.asarray(x)
    inputs = torch.tensor(images.copy())

    evaluated = nnx.view(model, deterministic=True, raise_if_not_found=False)
    twin.eval()
    forward = nnx.jit(lambda model, x: model(x))
    assert_close(forward(evaluated, x), logits(twin(inputs)), kind="composite")

    twin.train()
    inputs.requires_grad_()
    actual, expected = run(model, x), logits(twin(inputs))
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(actual.output, expected, kind="composite")
    input_gradient = torch.movedim(inputs.grad, 1, -1) if x.ndim == 4 else inputs.grad
    assert_close(actual.input_gradient, input_gradient, kind="composite")
    gradients = {
        path: to_ours(getattr(owner, LEAVES[name]).grad, name)
        for path, name, _, owner in variables(model, twins)
        if name in LEAVES
    }
    assert_close(actual.gradients, gradients, kind="composite")
    means = {
        path: owner.running_mean.numpy()
        for path, name, _, owner in variables(model, twins)
        if name == "mean"
    }
    moved = {path: value for path, value in actual.statistics.items() if path in means}
    assert_close(moved, means, kind="composite")


def logits(output: Any) -> Any:
    return getattr(output, "logits", output)


@pytest.mark.parametrize("config", [
    LinearRegressionConfig(num_features=6, num_outputs=3),
    LogisticRegressionConfig(num_features=6, num_classes=3),
])  # fmt: skip
def test_linear_models(config):
    model = randomized(lambda: zoo.build(config, rngs=nnx.Rngs(0)))
    twin = torch.nn.Linear(6, 3)
    assert_same(model, twin, {"linear": twin}, random(5, 6))


def test_mlp():
    config = MLPConfig(input_shape=(6,), hidden_dims=(8, 5), num_classes=3, activation="gelu_erf")
    model = randomized(lambda: zoo.build(config, rngs=nnx.Rngs(0)))
    nn = torch.nn
    twin = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 3))
    twins = {"hidden.0": twin[0], "hidden.1": twin[2], "classifier": twin[4]}
    assert_same(model, twin, twins, random(5, 6))


def test_convnet():
    config = ConvNetConfig(
        image_size=(10, 9), in_channels=2, conv_dims=(4, 6), dense_dim=7, num_classes=3
    )
    model = randomized(lambda: zoo.build(config, rngs=nnx.Rngs(0)))
    nn = torch.nn

    class Flatten(nn.Module):
        def forward(self, x):  # channels last, as our dense kernel counts its rows
            return x.movedim(1, -1).flatten(1)

    twin = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        Flatten(), nn.Linear(2 * 2 * 6, 7), nn.ReLU(), nn.Linear(7, 3),
    )  # fmt: skip
    twins = {"convs.0": twin[0], "convs.1": twin[3], "dense": twin[7], "classifier": twin[9]}
    assert_same(model, twin, twins, random(5, 10, 9, 2))


@pytest.mark.parametrize(
    ("block", "stage_sizes"), [("basic", (2, 2, 2, 2)), ("bottleneck", (3, 4, 6, 3))]
)
def test_resnet_18_and_50(block, stage_sizes):
    transformers = pytest.importorskip("transformers")
    config = ResNetConfig(block=block, stage_sizes=stage_sizes, width=4, num_classes=5)
    model = randomized(lambda: ResNet(config, rngs=nnx.Rngs(0)))
    tame(model)
    expansion = 1 if block == "basic" else 4
    twin = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=4,
            hidden_sizes=[4 * expansion * 2**stage for stage in range(4)],
            depths=list(stage_sizes),
            layer_type=block,
            num_labels=5,
        )
    )
    assert_same(model, twin, resnet_twins(twin), random(4, 64, 64, 3))


def tame(model: ResNet) -> None:
    """Give kernels unit gain and residual branches a small weight.

    Otherwise rounding errors grow through fifty layers: PyTorch in float32 would differ from itself
    in float64 by as much as the tolerance.
    """
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if path[-1] == "kernel":
            fan_in = np.prod(variable.shape[:-1])
            variable.set_value(variable[...] / (0.3 * np.sqrt(fan_in / 2)))
    for block in model.blocks:
        last = block.conv2 if isinstance(block, BasicBlock) else block.conv3
        last.norm.scale.set_value(0.2 * last.norm.scale[...])


def resnet_twins(twin: Any) -> dict[str, Any]:
    """Our paths to the modules of transformers that correspond."""
    pairs = {"stem": twin.resnet.embedder.embedder}
    blocks = [block for stage in twin.resnet.encoder.stages for block in stage.layers]
    for index, block in enumerate(blocks):
        pairs |= {f"blocks.{index}.conv{i}": layer for i, layer in enumerate(block.layer, start=1)}
        if not isinstance(block.shortcut, torch.nn.Identity):
            pairs[f"blocks.{index}.shortcut"] = block.shortcut
    twins = {f"{path}.conv": pair.convolution for path, pair in pairs.items()}
    twins |= {f"{path}.norm": pair.normalization for path, pair in pairs.items()}
    return {**twins, "classifier": twin.classifier[1]}
