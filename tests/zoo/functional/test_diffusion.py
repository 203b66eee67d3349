"""Diffusion by definition: a chain of Gaussians in numbers, and flows whose end is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional import diffusion


def test_the_schedule_goes_from_the_image_to_noise():
    bars = diffusion.cosine_schedule(50)
    assert bars.shape == (51,) and bars[0] == 1
    assert np.all(np.diff(bars) < 0) and 0 < bars[-1] < 1e-3
    way = (np.arange(50) / 50 + 0.008) / 1.008
    expected = np.cos(way * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert_close(bars[:50], expected)  # all but the last, which is cut at β = 0.999


def test_the_posterior_is_bayes_rule():
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), multiplied on a grid of x_s."""
    bar_s, bar_t, image, x = 0.7, 0.2, 0.4, -0.9
    alpha = bar_t / bar_s
    grid = np.linspace(-6, 6, 200_001)
    logs = -((grid - np.sqrt(bar_s) * image) ** 2) / (2 * (1 - bar_s))
    logs -= (x - np.sqrt(alpha) * grid) ** 2 / (2 * (1 - alpha))
    density = np.exp(logs - logs.max())
    density /= density.sum()
    mean = (grid * density).sum()
    variance = ((grid - mean) ** 2 * density).sum()
    found = diffusion.posterior(
        jnp.full((1, 1), image), jnp.full((1, 1), x), jnp.array([bar_t]), jnp.array([bar_s])
    )
    assert_close(found[0], [[mean]])
    assert_close(found[1], [[variance]])


def test_at_the_image_the_posterior_is_the_image():
    image, x = random(2, 3), random(2, 3, seed=1)
    mean, variance = diffusion.posterior(image, x, jnp.array([0.9, 0.1]), jnp.ones(2))
    assert_close(mean, image)
    assert_close(variance, jnp.zeros((2, 1)))


def test_denoise_undoes_diffuse():
    image, noise, bars = random(3, 4, 4, 2), random(3, 4, 4, 2, seed=1), jnp.array([0.9, 0.5, 0.1])
    noisy = diffusion.diffuse(image, noise, bars)
    assert_close(diffusion.denoise(noisy, noise, bars), image)
    variance = diffusion.diffuse(jnp.zeros((1, 9)), jnp.ones((1, 9)), jnp.array([0.36]))
    assert_close(variance, jnp.full((1, 9), 0.8))


def test_a_straight_line_has_constant_velocity():
    image, noise = random(2, 5), random(2, 5, seed=1)
    ends = [diffusion.interpolate(image, noise, jnp.full(2, t)) for t in (0.0, 1.0)]
    assert_close(ends[0], noise)
    assert_close(ends[1], image)
    _, velocity = jax.jvp(
        lambda t: diffusion.interpolate(image, noise, t), (jnp.array([0.2, 0.7]),), (jnp.ones(2),)
    )
    assert_close(velocity, image - noise)


@pytest.mark.parametrize("solver", [diffusion.euler, diffusion.heun])
def test_solvers_follow_a_straight_flow_to_its_end_in_one_step(solver):
    image, noise = random(2, 5), random(2, 5, seed=1)
    assert_close(solver(lambda x, t: image - noise, noise, 1), image)


@pytest.mark.parametrize(("solver", "order"), [(diffusion.euler, 1), (diffusion.heun, 2)])
def test_solvers_have_their_order(solver, order):
    """dx/dt = -x cos(5t) has the end x exp(-sin(5)/5); twice the steps, 2^order times as near."""
    with jax.enable_x64(True):
        start = jnp.array([[1.0], [-2.0]], jnp.float64)
        end = start * np.exp(-np.sin(5) / 5)
        errors = [
            np.abs(solver(lambda x, t: -x * jnp.cos(5 * t)[:, None], start, n) - end).max()
            for n in (200, 400)
        ]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.05)


def test_guidance_goes_beyond_the_class():
    told, untold = random(2, 3), random(2, 3, seed=1)
    assert_close(diffusion.guide(told, untold, 1.0), told)
    assert_close(diffusion.guide(told, untold, 0.0), untold)
    assert_close(diffusion.guide(told, untold, 3.0), told + 2 * (told - untold))
