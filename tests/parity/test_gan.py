"""DCGAN, its relatives and spectral normalisation against PyTorch, with all gradients."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, random, randomized, run, weighting
from train import losses
from zoo.layers import Conv, Linear, SpectralNorm
from zoo.models.gan import Discriminator, GANConfig, Generator

torch = pytest.importorskip("torch")
torch_gan = pytest.importorskip("benchmarks.twins.torch_gan")

CONFIG = GANConfig(image_size=12, in_channels=2, latent_dim=5, width=3)
DEEP = dataclasses.replace(CONFIG, image_size=20)


def as_torch(parameters) -> dict:
    """By PyTorch's names; all kernels [*window, in, out] as [out, in, *window]."""
    named = {}
    for path, value in parameters.items():
        value = np.asarray(value)
        path = path.replace(".kernel", ".weight").replace(".scale", ".weight")
        named[path] = np.moveaxis(value, (-1, -2), (0, 1)) if value.ndim > 1 else value
    return named


def compare(model, make, x, *, images_in: bool):
    """Values, and gradients of everything; images are [B, I, I, C] here and [B, C, I, I] there."""
    twin, carrier = make(), make()
    ours = {k.replace(".", "/"): np.array(v) for k, v in by_path(nnx.state(model)).items()}
    twin.load(ours)
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    expected = twin(tensor.movedim(-1, 1)) if images_in else twin(tensor).movedim(1, -1)
    result = run(model, x)
    assert_close(result.output, expected, kind="composite")
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(result.input_gradient, tensor.grad, kind="composite")
    gradients = {k.replace(".", "/"): np.array(v) for k, v in result.gradients.items()}
    carrier.load(ours | gradients)  # in the twin's layout
    found = {name: parameter.detach() for name, parameter in carrier.named_parameters()}
    wanted = {name: parameter.grad for name, parameter in twin.named_parameters()}
    assert_close(found, wanted, kind="composite")


@pytest.mark.parametrize("config", [CONFIG, DEEP], ids=["12", "20"])
def test_generator(config):
    model = randomized(lambda: Generator(config, rngs=nnx.Rngs(0)))
    compare(model, lambda: torch_gan.Generator(config), random(6, 5), images_in=False)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_discriminator(norm):
    config = dataclasses.replace(DEEP, norm=norm)
    model = randomized(lambda: Discriminator(config, rngs=nnx.Rngs(0)))
    x = random(6, 20, 20, 2)
    compare(model, lambda: torch_gan.Discriminator(config), x, images_in=True)


def test_losses():
    real, fake = random(9, seed=1), random(9, seed=2)
    pairs = [
        (losses.discriminator_loss(real, fake), torch_gan.discriminator_loss, (real, fake)),
        (losses.generator_loss(fake), torch_gan.generator_loss, (fake,)),
    ]
    for ours, theirs, logits in pairs:
        assert_close(ours, theirs(*(torch.tensor(np.asarray(x)) for x in logits)))


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
