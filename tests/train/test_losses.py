"""The losses of adversaries as printed, where those overflow, and their penalties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from train import losses

NUMBERS = np.random.default_rng(0)
REAL, FAKE = NUMBERS.normal(size=(2, 9)) * 3
EXTREMES = jnp.array([-200.0, 0.0, 200.0])


def probability(logits):
    """D, in float64."""
    return 1 / (1 + np.exp(-logits))


PRINTED = {
    losses.discriminator_loss: lambda d_x, d_g: -np.log(d_x).mean() - np.log(1 - d_g).mean(),
    losses.generator_loss: lambda d_x, d_g: -np.log(d_g).mean(),
    losses.minimax_generator_loss: lambda d_x, d_g: np.log(1 - d_g).mean(),
}


def arguments(loss, real, fake):
    both = loss in (losses.discriminator_loss, losses.critic_loss)
    return [jnp.asarray(x, jnp.float32) for x in ([real, fake] if both else [fake])]


@pytest.mark.parametrize("loss", PRINTED, ids=lambda loss: loss.__name__)
def test_a_loss_is_what_the_paper_prints(loss):
    expected = PRINTED[loss](probability(REAL), probability(FAKE))
    assert_close(loss(*arguments(loss, REAL, FAKE)), expected)


@pytest.mark.parametrize("loss", PRINTED, ids=lambda loss: loss.__name__)
def test_a_loss_and_its_gradient_are_finite_where_the_printed_formula_overflows(loss):
    given = arguments(loss, EXTREMES, -EXTREMES)
    value, gradient = jax.value_and_grad(loss)(*given)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    with np.errstate(divide="ignore", over="ignore"):
        assert not np.isfinite(
            PRINTED[loss](*[probability(np.asarray(x)) for x in (EXTREMES, -EXTREMES)])
        )


def test_sure_and_wrong_the_loss_grows_by_the_logit():
    value, gradient = jax.value_and_grad(losses.generator_loss)(jnp.array([-200.0]))
    assert_close(value, 200.0)
    assert_close(gradient, [-1.0])


def test_the_minimax_loss_is_the_discriminator_s_turned_round():
    def part(real, fake):
        return losses.discriminator_loss(real, fake) - losses.discriminator_loss(real, 0 * fake)

    real, fake = arguments(losses.discriminator_loss, REAL, FAKE)
    ours = losses.minimax_generator_loss(fake) - losses.minimax_generator_loss(0 * fake)
    assert_close(ours, -part(real, fake))


def test_a_critic_s_losses_are_differences_of_means():
    assert_close(
        losses.critic_loss(*arguments(losses.critic_loss, REAL, FAKE)), FAKE.mean() - REAL.mean()
    )
    assert_close(losses.critic_generator_loss(jnp.asarray(FAKE, jnp.float32)), -FAKE.mean())


def test_penalties_by_finite_differences_of_a_critic():
    """The slope of f along each pixel, measured and not derived."""
    weights = NUMBERS.normal(size=(6, 6))

    def critic(x):  # of images [2, 3, 1]
        flat = x.reshape(*x.shape[:-3], 6)
        return np.sin(flat @ weights).sum(-1)

    x, step = NUMBERS.normal(size=(4, 2, 3, 1)), 1e-6
    measured = np.zeros_like(x)
    for place in np.ndindex(2, 3, 1):
        moved = np.zeros((2, 3, 1))
        moved[place] = step
        measured[:, *place] = (critic(x + moved) - critic(x - moved)) / (2 * step)

    def ours(x):
        return jnp.sin(x.reshape(6) @ jnp.asarray(weights, jnp.float32)).sum()

    gradients = jax.vmap(jax.grad(ours))(jnp.asarray(x, jnp.float32))
    norms = np.linalg.norm(measured.reshape(4, 6), axis=1)
    assert_close(losses.gradient_penalty(gradients), np.square(norms - 1).mean(), kind="composite")
    assert_close(losses.r1_penalty(gradients), np.square(norms).mean() / 2, kind="composite")


def test_a_dead_critic_has_a_penalty_with_a_gradient():
    value, gradient = jax.value_and_grad(losses.gradient_penalty)(jnp.zeros((2, 3, 3, 1)))
    assert_close(value, 1.0)
    assert np.isfinite(gradient).all()
