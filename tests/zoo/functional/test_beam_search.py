"""Beam search against an exhaustive search, greedy search and a GPT with its cache."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized
from zoo.functional.beam_search import beam_search, length_penalty
from zoo.layers.attention import KVCache
from zoo.models.gpt import GPT, GPTConfig

VOCAB, LENGTH, END = 3, 4, 0
WEIGHTS = 2 * random(LENGTH, VOCAB, VOCAB, seed=1)
FIRST = jnp.array([1, 2])


def logits_after(history):
    """Of tokens [N, T], of which -1 stands for none yet: a function of all and their places."""
    return jnp.sin(jnp.einsum("ntv,tvw->nw", history[..., None] == jnp.arange(VOCAB), WEIGHTS))


def step(tokens, caches):
    """A model whose cache is what it has seen."""
    rows = jnp.arange(len(tokens))
    seen = caches["seen"].at[rows, caches["length"]].set(tokens[:, 0])
    return logits_after(seen)[:, None] * 4, {"seen": seen, "length": caches["length"] + 1}


def empty(batch_size: int):
    return {
        "seen": jnp.full((batch_size, LENGTH), -1),
        "length": jnp.zeros(batch_size, jnp.int32),
    }


def search(first=FIRST, **settings):
    settings = {"max_tokens": LENGTH, "end_token": END} | settings
    run = jax.jit(lambda first, caches: beam_search(step, caches, first, **settings))
    return run(first, empty(len(first)))


def log_probability(first: int, continuation: tuple[int, ...]) -> float:
    total, seen = 0.0, [first]
    for token in continuation:
        history = jnp.array([seen + [-1] * (LENGTH - len(seen))])
        logits = np.asarray(4 * logits_after(history)[0], np.float64)
        total += logits[token] - np.log(np.exp(logits).sum())
        seen.append(token)
    return total


def every_continuation():
    """All that end, and those of full length that do not."""
    others = [token for token in range(VOCAB) if token != END]
    for length in range(1, LENGTH + 1):
        for start in itertools.product(others, repeat=length - 1):
            for last in range(VOCAB) if length == LENGTH else [END]:
                yield (*start, last)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_beam_wide_enough_finds_all_in_order(alpha):
    continuations = list(every_continuation())
    tokens, scores = search(beam_size=len(continuations), alpha=alpha)
    for row, first in enumerate(FIRST):
        expected = {
            c: log_probability(int(first), c) / ((5 + len(c)) / 6) ** alpha for c in continuations
        }
        best = sorted(expected, key=lambda c: -expected[c])
        assert_close(scores[row], [expected[c] for c in best])
        for found, wanted in zip(tokens[row], best, strict=True):
            assert found.tolist() == [*wanted, *[END] * (LENGTH - len(wanted))]


@pytest.mark.parametrize("alpha", [0.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_one_beam_is_greedy(alpha, seed):
    first = jnp.asarray(np.random.default_rng(seed).integers(0, VOCAB, 4))
    tokens, scores = search(first, beam_size=1, alpha=alpha)
    for row in range(4):
        greedy, caches, last = [], empty(1), first[row : row + 1]
        while len(greedy) < LENGTH and END not in greedy:
            logits, caches = step(last[:, None], caches)
            last = jnp.argmax(logits[:, 0], -1)
            greedy.append(int(last[0]))
        assert tokens[row, 0].tolist() == greedy + [END] * (LENGTH - len(greedy))
        wanted = log_probability(int(first[row]), tuple(greedy))
        assert_close(scores[row, 0], wanted / length_penalty(len(greedy), alpha))


def test_a_wider_beam_finds_no_worse_and_rows_do_not_mix():
    scores = [search(beam_size=size, alpha=0.0)[1][:, 0] for size in (1, 3, 31)]
    assert (scores[0] <= scores[1] + 1e-6).all() and (scores[1] <= scores[2] + 1e-6).all()
    together = search(beam_size=3)
    for row in range(2):
        alone = search(FIRST[row : row + 1], beam_size=3)
        assert alone[0].tolist() == together[0][row : row + 1].tolist()
        assert_close(alone[1], together[1][row : row + 1])


@pytest.mark.parametrize("scan", [False, True])
def test_a_model_with_caches(scan):
    """The score is the model's own log-probability; stacked caches have their batch second."""
    config = GPTConfig(vocab_size=7, context=8, num_layers=2, num_heads=2, dim=8, scan=scan)
    model = randomized(lambda: GPT(config, rngs=nnx.Rngs(0)))

    @jax.jit
    def run(model, first):
        caches = model.empty_caches(2, 6)
        return beam_search(
            model.step, caches, first, beam_size=3, max_tokens=6, end_token=0, alpha=0.0,
            batch_axes=int(scan),
        )  # fmt: skip

    tokens, scores = run(model, FIRST)
    best = jnp.concatenate([FIRST[:, None], tokens[:, 0]], 1)
    log_probs = jax.nn.log_softmax(jax.jit(lambda model, x: model(x))(model, best[:, :-1]))
    chosen = np.asarray(jnp.take_along_axis(log_probs, best[:, 1:, None], 2)[..., 0])
    ended = np.cumsum(np.asarray(tokens[:, 0]) == 0, 1) - (np.asarray(tokens[:, 0]) == 0)
    assert_close(scores[:, 0], (chosen * (ended == 0)).sum(1), kind="composite")


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="beam_size=0 and max_tokens=4 must be at least 1"):
        search(beam_size=0)


def test_hypotheses_longer_than_the_caches():
    """A cache drops what lies beyond its end, so that the search would go on without it."""
    caches = {"block": KVCache.empty((len(FIRST), 5, 2, 4)), "count": jnp.zeros(len(FIRST))}
    message = "max_tokens=6 new ones do not fit into a cache of 5; make it for 6 tokens"
    with pytest.raises(ValueError, match=message):
        beam_search(step, caches, FIRST, beam_size=2, max_tokens=6, end_token=0)
