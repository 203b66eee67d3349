"""Which tokens may be drawn, and how often they are; text from a cache is that of full passes."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.zoo.compare import randomized
from zoo.functional.generate import generate
from zoo.functional.sampling import keep_top_k, keep_top_p, sample
from zoo.layers import KVCache
from zoo.models.gpt import GPTConfig
from zoo.models.llama import LlamaConfig
from zoo.models.lstm import LSTMLanguageModelConfig

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


@pytest.mark.parametrize("logits", [LOGITS, np.random.default_rng(0).standard_normal(50_000)])
def test_top_p_of_1_keeps_all(logits):
    """The sum of many shares reaches 1 before the last of them, as it is rounded."""
    assert len(kept(keep_top_p(jnp.asarray(logits, jnp.float32), 1.0))) == logits.size


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


SIZE: dict[str, Any] = {"vocab_size": 19, "num_layers": 2, "dim": 8}
LLAMA = LlamaConfig(**SIZE, context=16, num_heads=2, num_kv_heads=1, hidden_dim=12)
MODELS = {
    "GPT": GPTConfig(**SIZE, context=16, num_heads=2),
    "GPT, scanned": GPTConfig(**SIZE, context=16, num_heads=2, scan=True),
    "Llama": LLAMA,
    "Llama, scanned": replace(LLAMA, scan=True),
    # Its state has no length to set back. At this size what it reads changes what it writes.
    "LSTM": LSTMLanguageModelConfig(vocab_size=19, num_layers=1, dim=24),
}
LENGTHS = [6, 2, 4]
KEY = jax.random.key(0)
PROMPTS = np.random.default_rng(0).integers(0, 19, (3, 6)).astype(np.int32)


class Writer:
    """A model that goes on from three prompts by ten tokens, and counts its compilations."""

    def __init__(self, name: str, **choice: Any):
        self.model: Any = randomized(lambda: zoo.build(MODELS[name], rngs=nnx.Rngs(0)))
        self.forward = jax.jit(lambda tokens: self.model(tokens))
        self.choose = partial(sample, **choice)
        self.num_traces = 0
        self.compiled = jax.jit(self.write)

    def write(self, prompts, lengths, key):
        self.num_traces += 1
        step, caches = self.model.step, self.model.empty_caches(3, 16)
        return generate(step, caches, prompts, lengths, 10, self.choose, key)

    def __call__(self, prompts=PROMPTS, lengths=LENGTHS, seed=0) -> np.ndarray:
        return np.asarray(self.compiled(prompts, jnp.array(lengths), jax.random.key(seed)))

    def ranks(self, written) -> list[int]:
        """How many tokens a full pass over the text so far holds likelier than the one written."""
        ranks = []
        for row, length in enumerate(LENGTHS):
            text = [*PROMPTS[row, :length], *written[row]]
            # Causal, so what stands after a text changes nothing.
            logits = self.forward(np.pad(text, (0, 16 - len(text)))[None].astype(np.int32))[0]
            ranks += [
                int((logits[place - 1] > logits[place - 1, text[place]]).sum())
                for place in range(length, len(text))
            ]
        return ranks


@pytest.mark.parametrize("name", MODELS)
def test_greedy_text_is_that_of_full_passes_for_unequal_prompts(name):
    write = Writer(name, temperature=0.0)
    written = write()
    assert write.ranks(written) == [0] * 30 and len(np.unique(written)) > 3
    changed = PROMPTS.copy()
    changed[1, 2:] = 0
    assert_close(write(changed), written)
    assert write.num_traces == 1, "one compilation for all prompts of a shape"


@pytest.mark.parametrize("name", ["GPT, scanned", "Llama"])
def test_drawn_text_is_decided_by_the_seed(name):
    write = Writer(name, temperature=1.5, top_k=4)
    written = write(seed=1)
    assert (write(seed=1) == written).all() and (write(seed=2) != written).any()
    assert set(write.ranks(written)) == {0, 1, 2, 3}
    assert write.num_traces == 1, "one compilation for all seeds"


def running_sum(tokens, state):
    """What follows is the sum of all tokens so far, modulo 19; the state has no length."""
    sums = state[:, None] + jnp.cumsum(tokens, axis=1)
    return jax.nn.one_hot(sums % 19, 19), sums[:, -1]


def go_on(prompts, lengths, caches=None, num_tokens=3):
    caches = jnp.zeros(len(prompts), jnp.int32) if caches is None else caches
    greedy = partial(sample, temperature=0.0)
    return generate(running_sum, caches, jnp.asarray(prompts), lengths, num_tokens, greedy, KEY)


def test_whole_prompts_need_no_lengths():
    first = PROMPTS.sum(1)
    expected = np.stack([first, 2 * first, 4 * first], 1) % 19
    for lengths in (None, jnp.full(3, 6)):
        assert (go_on(PROMPTS, lengths) == expected).all()
    one = jax.jit(lambda lengths: go_on(PROMPTS[:, :1], lengths))(jnp.ones(3, int))
    assert (one == go_on(PROMPTS[:, :1], None)).all()


def test_padding_that_a_state_would_read_is_refused():
    with pytest.raises(ValueError, match="the state of this model has no length to set back"):
        go_on(PROMPTS, jnp.array(LENGTHS))
    with pytest.raises(ValueError, match="lengths may differ"):
        jax.jit(lambda lengths: go_on(PROMPTS, lengths))(jnp.full(3, 6))  # they might


@pytest.mark.parametrize("lengths", [[6, 0, 4], [6, 2, 7]])
def test_lengths_must_lie_within_the_prompts(lengths):
    with pytest.raises(ValueError, match=rf"lengths=.*{lengths[1]}, .* must lie in 1 .. 6"):
        go_on(PROMPTS, jnp.array(lengths))


@pytest.mark.parametrize("lead", [(), (2,)])  # a cache, and those of two layers stacked
def test_a_text_longer_than_the_cache(lead):
    empty = KVCache.empty((3, 16, 2, 4))
    caches = jax.tree.map(lambda x: jnp.broadcast_to(x, (*lead, *x.shape)), empty)
    message = "prompts of 6 tokens and num_tokens=11 new ones do not fit into a cache of 16"
    with pytest.raises(ValueError, match=message):
        go_on(PROMPTS, None, caches=(caches,), num_tokens=11)
