"""Which tokens may be drawn, and how often they are; text from a cache is that of full passes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import randomized
from zoo.functional.generate import generate
from zoo.functional.sampling import keep_top_k, keep_top_p, sample
from zoo.models.gpt import GPT, GPTConfig

PROBABILITIES = np.array([0.05, 0.4, 0.1, 0.25, 0.2])
LOGITS = jnp.log(jnp.asarray(PROBABILITIES, jnp.float32))


def kept(logits) -> list[int]:
    return np.flatnonzero(np.isfinite(np.asarray(logits))).tolist()


@pytest.mark.parametrize(("k", "tokens"), [(1, [1]), (3, [1, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_top_k(k, tokens):
    assert kept(keep_top_k(LOGITS, k)) == tokens


@pytest.mark.parametrize(
    ("p", "tokens"),
    [(0.01, [1]), (0.39, [1]), (0.5, [1, 3]), (0.8, [1, 3, 4]), (0.9, [1, 2, 3, 4]), (1.0, None)],
)
def test_top_p_keeps_the_fewest_that_reach_it(p, tokens):
    assert kept(keep_top_p(LOGITS, p)) == (tokens or [0, 1, 2, 3, 4])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature):
    draws = sample(
        jnp.broadcast_to(LOGITS, (20_000, 5)), jax.random.key(0), temperature=temperature
    )
    expected = PROBABILITIES ** (1 / temperature)
    shares = np.bincount(np.asarray(draws), minlength=5) / 20_000
    assert np.abs(shares - expected / expected.sum()).max() < 0.015  # 4 standard deviations


def test_temperature_zero_is_greedy_and_the_seed_decides():
    many = jnp.broadcast_to(LOGITS, (50, 5))
    assert set(np.asarray(sample(many, jax.random.key(0), temperature=0.0)).tolist()) == {1}
    first, again, other = (sample(many, jax.random.key(seed)) for seed in (3, 3, 4))
    assert (first == again).all() and not (first == other).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 must be 0"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"top_p": 0.0}, "top_p=0.0 must lie in"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        sample(LOGITS, jax.random.key(0), **wrong)


def test_greedy_text_is_that_of_full_passes_for_unequal_prompts():
    config = GPTConfig(vocab_size=19, context=16, num_layers=2, num_heads=2, dim=8)
    model = randomized(lambda: GPT(config, rngs=nnx.Rngs(0)))
    lengths = [6, 2, 4]
    prompts = np.random.default_rng(0).integers(0, 19, (3, 6)).astype(np.int32)
    traced = []

    @jax.jit
    def write(prompts, lengths):
        traced.append(prompts.shape)
        caches = model.empty_caches(3, 16)
        greedy = partial(sample, temperature=0.0)
        return generate(model.step, caches, prompts, lengths, 10, greedy, jax.random.key(0))

    written = np.asarray(write(prompts, jnp.array(lengths)))
    forward = jax.jit(lambda tokens: model(tokens))
    for row, length in enumerate(lengths):
        text = prompts[row, :length].tolist()
        for token in written[row]:
            # Causal, so what stands after the text so far changes nothing.
            logits = forward(np.pad(text, (0, 16 - len(text)))[None].astype(np.int32))
            assert int(jnp.argmax(logits[0, len(text) - 1])) == token
            text.append(int(token))
    changed = prompts.copy()
    changed[1, 2:] = 0
    assert_close(write(changed, jnp.array(lengths)), written)
    assert len(traced) == 1, "one compilation for all prompts of a shape"
