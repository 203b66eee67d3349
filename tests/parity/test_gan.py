"""DCGAN, its relatives and spectral normalisation against PyTorch, with all gradients."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, random, randomized, run, weighting
from zoo.layers import Conv, Linear, SpectralNorm
from zoo.models.gan import Discriminator, GANConfig, Generator

torch = pytest.importorskip("torch")

CONFIG = GANConfig(image_size=12, in_channels=2, latent_dim=5, width=3)
DEEP = dataclasses.replace(CONFIG, image_size=20)


def small_map(x, channels, side):
    """What a dense layer gives, as a map of ours, in PyTorch's axes."""
    return x.view(-1, side, side, channels).permute(0, 3, 1, 2)


class TorchGenerator(torch.nn.Module):
    """As the paper's figure 1 draws it, from the smallest map on."""

    def __init__(self, config: GANConfig):
        super().__init__()
        dims, side = config.dims[::-1], config.smallest_size
        self.side, self.dims = side, dims
        self.first = torch.nn.Linear(config.latent_dim, side * side * dims[0], bias=False)
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(dim) for dim in dims)
        convs = [
            torch.nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)
            for a, b in pairwise(dims)
        ]
        convs.append(torch.nn.ConvTranspose2d(dims[-1], config.in_channels, 4, stride=2, padding=1))
        self.convs = torch.nn.ModuleList(convs)

    def forward(self, z):
        x = small_map(self.first(z), self.dims[0], self.side)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(torch.relu(norm(x)))
        return torch.tanh(x).permute(0, 2, 3, 1)


class TorchDiscriminator(torch.nn.Module):
    def __init__(self, config: GANConfig):
        super().__init__()
        dims = (config.in_channels, *config.dims)
        norms = {
            "batch": torch.nn.BatchNorm2d,
            "layer": lambda dim: torch.nn.GroupNorm(1, dim),
            "none": lambda dim: torch.nn.Identity(),
        }
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(
                a, b, 4, stride=2, padding=1, bias=a == config.in_channels or config.norm != "batch"
            )
            for a, b in pairwise(dims)
        )
        self.norms = torch.nn.ModuleList(
            [torch.nn.Identity(), *[norms[config.norm](dim) for dim in config.dims[1:]]]
        )
        self.last = torch.nn.Linear(config.smallest_size**2 * dims[-1], 1)

    def forward(self, images):
        x = images.permute(0, 3, 1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.nn.functional.leaky_relu(norm(conv(x)), 0.2)
        return self.last(x.permute(0, 2, 3, 1).flatten(1))[:, 0]


def as_torch(parameters) -> dict:
    """By PyTorch's names; all kernels [*window, in, out] as [out, in, *window]."""
    named = {}
    for path, value in parameters.items():
        value = np.asarray(value)
        path = path.replace(".kernel", ".weight").replace(".scale", ".weight")
        named[path] = np.moveaxis(value, (-1, -2), (0, 1)) if value.ndim > 1 else value
    return named


def compare(model, twin, x):
    """Values, and gradients of everything."""
    ours = as_torch(by_path(nnx.state(model, nnx.Param)))
    loaded = twin.load_state_dict({n: torch.tensor(v) for n, v in ours.items()}, strict=False)
    assert not loaded.unexpected_keys
    assert all("running" in key or "num_batches" in key for key in loaded.missing_keys)
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    expected, result = twin(tensor), run(model, x)
    assert_close(result.output, expected, kind="composite")
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(result.input_gradient, tensor.grad, kind="composite")
    wanted = {name: parameter.grad for name, parameter in twin.named_parameters()}
    assert_close(as_torch(result.gradients), wanted, kind="composite")


@pytest.mark.parametrize("config", [CONFIG, DEEP], ids=["12", "20"])
def test_generator(config):
    model = randomized(lambda: Generator(config, rngs=nnx.Rngs(0)))
    compare(model, TorchGenerator(config), random(6, 5))


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_discriminator(norm):
    config = dataclasses.replace(DEEP, norm=norm)
    model = randomized(lambda: Discriminator(config, rngs=nnx.Rngs(0)))
    compare(model, TorchDiscriminator(config), random(6, 20, 20, 2))


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_spectral_norm(kind):
    """Followed to its end, as PyTorch takes the two halves of a step in the other order."""
    if kind == "conv":
        make, x = lambda: Conv(2, 5, 3, rngs=nnx.Rngs(0)), random(4, 6, 6, 2)
        twin = torch.nn.Conv2d(2, 5, 3, padding=1)
    else:
        make, x = lambda: Linear(7, 5, rngs=nnx.Rngs(0)), random(4, 7)
        twin = torch.nn.Linear(7, 5)
    model = randomized(lambda: SpectralNorm(make(), rngs=nnx.Rngs(1)))
    nnx.update(model, {"u": random(5, seed=1)})
    with torch.no_grad():
        ours = as_torch(by_path(nnx.state(model, nnx.Param)))
        twin.weight.copy_(torch.tensor(ours["layer.weight"]))
        twin.bias.copy_(torch.tensor(ours["layer.bias"]))
    torch.nn.utils.parametrizations.spectral_norm(twin, n_power_iterations=200)
    for _ in range(200):
        statistics = run(model, x).statistics
        nnx.update(model, {name: statistics[name] for name in ("u", "v")})
    result = run(model, x)
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    expected = twin(tensor.movedim(-1, 1)).movedim(1, -1)
    assert_close(result.output, expected, kind="composite")
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(result.input_gradient, tensor.grad, kind="composite")
    gradients = as_torch(result.gradients)
    wanted = {"layer.weight": twin.parametrizations.weight.original.grad}
    assert_close(gradients, {**wanted, "layer.bias": twin.bias.grad}, kind="composite")
