"""Autoencoder and variational autoencoder against PyTorch's layers, with all gradients."""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, random, randomized, run, run_on_tokens, weighting
from train import losses
from zoo.models.autoencoder import Autoencoder, AutoencoderConfig
from zoo.models.vae import VAE, VAEConfig

torch = pytest.importorskip("torch")
nn = torch.nn

SHAPE = (8, 12, 2)
SIZES = {
    "convolutions": {"conv_dims": (3, 4), "hidden_dims": (), "activation": "relu"},
    "dense": {"conv_dims": (), "hidden_dims": (9, 7), "activation": "tanh"},
    "both": {"conv_dims": (3,), "hidden_dims": (9,), "activation": "silu"},
}
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


class ChannelsLast(nn.Module):
    """Flattens and unflattens as we do, channels last, around what PyTorch has first."""

    def __init__(self, shape: tuple[int, ...] | None = None):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        if self.shape is None:
            return x.movedim(1, -1).flatten(1)
        return x.unflatten(1, self.shape).movedim(-1, 1)


def layers(sizes, code_in: int, code_out: int):
    """PyTorch's encoder up to the code's layer, and its decoder; images are [B, C, I, J]."""
    dims, hidden, bend = sizes["conv_dims"], sizes["hidden_dims"], ACTIVATIONS[sizes["activation"]]
    small = (SHAPE[0] >> len(dims), SHAPE[1] >> len(dims), (SHAPE[-1], *dims)[-1])
    encoder, decoder = [], []
    for a, b in pairwise((SHAPE[-1], *dims)):
        encoder += [nn.Conv2d(a, b, 4, 2, 1), bend()]
    encoder.append(ChannelsLast())
    widths = (math.prod(small), *hidden)
    for a, b in pairwise(widths):
        encoder += [nn.Linear(a, b), bend()]
    encoder.append(nn.Linear(widths[-1], code_out))
    back = (code_in, *widths[::-1])
    for a, b in pairwise(back):
        decoder += [nn.Linear(a, b), bend()]
    decoder[-1] = ChannelsLast(small)
    for a, b in pairwise((*dims[::-1], SHAPE[-1])):
        decoder += [bend(), nn.ConvTranspose2d(a, b, 4, 2, 1)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def in_order(values, parts: tuple[str, ...]) -> list[np.ndarray]:
    """Our arrays in PyTorch's layouts and in the order in which the twin uses them."""
    found = []
    for part in parts:
        names = [name for name in values if name.startswith(part)]
        for layer in sorted({name.rsplit(".", 1)[0] for name in names}, key=_use):
            kernel, bias = (np.asarray(values[f"{layer}.{leaf}"]) for leaf in ("kernel", "bias"))
            found += [np.moveaxis(kernel, (-1, -2), (0, 1)), bias]
    return found


def _use(layer: str) -> tuple[bool, str]:
    """Sorts convolutions before dense layers in an encoder, and after them in a decoder."""
    encodes = layer.startswith("encoder")
    return (".hidden" in layer) == encodes, layer


def compare(parts, gradients, networks, output, expected):
    assert_close(output, expected.movedim(1, -1), kind="composite")
    expected.backward(torch.tensor(weighting(output.shape)).movedim(-1, 1))
    wanted = [p.grad for network in networks for p in network.parameters()]
    assert_close(in_order(gradients, parts), wanted, kind="composite")


def fill(networks, arrays):
    parameters = [p for network in networks for p in network.parameters()]
    with torch.no_grad():
        for parameter, array in zip(parameters, arrays, strict=True):
            parameter.copy_(torch.tensor(array))


@pytest.mark.parametrize("name", SIZES)
def test_autoencoder(name):
    config = AutoencoderConfig(input_shape=SHAPE, code_dim=5, **SIZES[name])
    model = randomized(lambda: Autoencoder(config, rngs=nnx.Rngs(0)))
    parts = ("encoder", "to_code", "decoder")
    networks = layers(SIZES[name], 5, 5)
    fill(networks, in_order(by_path(nnx.state(model)), parts))
    x = random(3, *SHAPE)
    ours = run(model, x)
    expected = networks[1](networks[0](torch.tensor(np.array(x)).movedim(-1, 1)))
    compare(parts, ours.gradients, networks, ours.output, expected)


class Bound(nnx.Module):
    """What each image adds to the negative bound."""

    def __init__(self, vae: VAE):
        self.vae = vae

    def __call__(self, x, noise):
        told, mean, log_var = self.vae(x, noise)
        likelihood = losses.gaussian_log_likelihood(x, told, self.vae.log_sigma[...])
        return losses.kl_from_standard_normal(mean, log_var) - likelihood


@pytest.mark.parametrize("name", SIZES)
def test_the_bound_of_a_vae(name):
    """Its terms are those of torch.distributions; the gradient is of all parameters and σ."""
    config = VAEConfig(input_shape=SHAPE, latent_dim=4, **SIZES[name])
    model = randomized(lambda: Bound(VAE(config, rngs=nnx.Rngs(0))))
    values = {k.removeprefix("vae."): v for k, v in by_path(nnx.state(model)).items()}
    encoder, decoder = layers(SIZES[name], 4, 8)
    parts = ("encoder", "to_moments", "decoder")
    fill((encoder, decoder), in_order(values, parts))
    log_sigma = torch.tensor(np.array(values["log_sigma"]), requires_grad=True)
    x, noise = random(3, *SHAPE), random(3, 4, seed=1)
    output, gradients = run_on_tokens(model, x, noise)

    images = torch.tensor(np.array(x)).movedim(-1, 1)
    mean, log_var = encoder(images).chunk(2, dim=1)
    code = torch.distributions.Normal(mean, torch.exp(log_var / 2))
    z = mean + torch.exp(log_var / 2) * torch.tensor(np.array(noise))
    pixels = torch.distributions.Normal(torch.tanh(decoder(z)), log_sigma.exp())
    prior = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
    divergence = torch.distributions.kl_divergence(code, prior).sum(1)
    expected = divergence - pixels.log_prob(images).flatten(1).sum(1)
    assert_close(output, expected, kind="composite")
    expected.backward(torch.tensor(weighting(output.shape)))
    gradients = {k.removeprefix("vae."): v for k, v in gradients.items()}
    wanted = [p.grad for network in (encoder, decoder) for p in network.parameters()]
    assert_close(in_order(gradients, parts), wanted, kind="composite")
    assert_close(gradients["log_sigma"], log_sigma.grad, kind="composite")


def test_the_divergence_is_what_sampling_finds():
    """E_q[log q - log p] over a million codes, within five standard errors."""
    mean, log_var = random(1, 3), random(1, 3, seed=1)
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(jax.random.key(0), (1_000_000, 3))
    log_q = -((z - mean) ** 2) / jnp.exp(log_var) / 2 - log_var / 2
    each = np.asarray((log_q + z**2 / 2).sum(-1), np.float64)
    closed = float(losses.kl_from_standard_normal(mean, log_var)[0])
    assert abs(each.mean() - closed) < 5 * each.std() / 1000
