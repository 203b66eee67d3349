"""Multi-head attention: order without positions, its cache, shared heads, what it refuses."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized
from zoo.functional.attention import Mask
from zoo.functional.position import alibi, rotary
from zoo.layers import KVCache, MultiHeadAttention

DIM, HEADS, KV_HEADS, ROWS, TOKENS = 16, 4, 2, 2, 7
X = random(ROWS, TOKENS, DIM)
ORDER = np.array([3, 1, 6, 0, 2, 5, 4])
POSITIONS = {  # settings of a call with queries at these positions and keys at the first ones
    "none": lambda positions, num_keys: {},
    "rotary": lambda positions, num_keys: {"rotate": partial(rotary, positions=positions)},
    "alibi": lambda positions, num_keys: {"bias": alibi(HEADS, num_keys, positions)},
}


def build(**settings) -> MultiHeadAttention:
    return randomized(lambda: MultiHeadAttention(DIM, HEADS, rngs=nnx.Rngs(0), **settings))


@pytest.fixture(scope="module")
def layer() -> MultiHeadAttention:
    return build(num_kv_heads=KV_HEADS)


@jax.jit
def run(layer, x, mask=None, bias=None, memory=None):
    return layer(x, mask, bias=bias, memory=memory)


def test_without_positions_what_is_permuted_comes_out_permuted(layer):
    y = run(layer, X)
    assert_close(run(layer, X[:, ORDER]), y[:, ORDER])
    assert_close(run(layer, X, memory=X[:, ORDER]), y)
    bias = alibi(HEADS, TOKENS)
    assert not np.allclose(run(layer, X[:, ORDER], bias=bias), run(layer, X, bias=bias)[:, ORDER])


def test_a_bias_of_minus_infinity_hides_as_a_mask_does(layer):
    visible = Mask(causal=True).array(TOKENS, TOKENS)
    hidden = run(layer, X, bias=jnp.where(visible, 0, -jnp.inf))
    assert_close(hidden, run(layer, X, Mask(causal=True)))
    assert not np.allclose(hidden, run(layer, X))


def test_shared_heads_are_those_of_a_layer_that_repeats_them(layer):
    """Query head n looks at key head n // (N / K)."""
    shared, group = HEADS // KV_HEADS, (KV_HEADS, DIM // HEADS)

    def repeated(parts):
        """Columns of the shared layer, G + 2 parts of K heads, as 3 parts of N heads."""
        parts = parts.reshape(-1, shared + 2, *group)
        queries = parts[:, :shared].swapaxes(1, 2)  # [D, K, G, H]: heads of a key head together
        kv = jnp.repeat(parts[:, shared:], shared, axis=2)  # [D, 2, N, H]
        return jnp.concatenate([queries.reshape(-1, DIM), kv.reshape(-1, 2 * DIM)], axis=1)

    whole = build()
    assert layer.qkv.bias is not None and whole.qkv.bias is not None
    whole.qkv.kernel.set_value(repeated(layer.qkv.kernel[...]))
    whole.qkv.bias.set_value(repeated(layer.qkv.bias[...])[0])
    nnx.update(whole.out, nnx.state(layer.out))
    assert_close(run(layer, X), run(whole, X))


@pytest.mark.parametrize("name", POSITIONS)
def test_step_by_step_each_row_is_its_own_full_pass(layer, name):
    """Two prompts of 4 and 2 tokens, padded to 4, go on by the same three."""
    settings, lengths = POSITIONS[name], jnp.array([4, 2])

    @jax.jit
    def step(layer, x, cache):
        return layer.step(x, cache, **settings(cache.positions(x.shape[1]), cache.capacity))

    cache = KVCache.empty((ROWS, 9, KV_HEADS, DIM // HEADS))
    prompts, cache = step(layer, X[:, :4], cache)
    cache, after = dataclasses.replace(cache, length=lengths), []
    for place in (4, 5, 6):
        y, cache = step(layer, X[:, place : place + 1], cache)
        after.append(y)
    # The second row's text is two tokens shorter; what stands after its end changes nothing.
    texts = X.at[1].set(X[1, np.array([0, 1, 4, 5, 6, 0, 0])])

    @jax.jit
    def full(layer):
        return layer(texts, Mask(causal=True), **settings(jnp.arange(TOKENS)[None], TOKENS))

    for row, length in enumerate(lengths):
        stepped = jnp.concatenate([prompts[row, :length], *(y[row] for y in after)])
        assert_close(stepped, full(layer)[row, : length + 3])


def test_more_tokens_than_a_cache_holds(layer):
    cache = KVCache.empty((ROWS, 4, KV_HEADS, DIM // HEADS))
    with pytest.raises(ValueError, match="7 tokens do not fit into a cache of 4"):
        layer.step(X, cache)
    k = random(ROWS, 5, KV_HEADS, DIM // HEADS)
    cache = cache.write(k[:, :3], k[:, :3]).write(k[:, 3:], k[:, 3:])  # one too many, at run time
    assert_close(cache.k, k[:, :4])


@pytest.mark.parametrize("shape", [(3, 9, 2, 4), (2, 9, 4, 4), (2, 9, 2, 8)])
def test_a_cache_of_another_batch_or_model(layer, shape):
    with pytest.raises(ValueError, match=r"keys of shape \(2, 7, 2, 4\) do not fit into a cache"):
        layer.step(X, KVCache.empty(shape))


@pytest.mark.parametrize(("sizes", "kv_heads"), [((10, 4), None), ((16, 4), 3)])
def test_heads_must_divide(sizes, kv_heads):
    with pytest.raises(ValueError, match="must divide"):
        MultiHeadAttention(*sizes, rngs=nnx.Rngs(0), num_kv_heads=kv_heads)


def test_a_wrong_width_is_named(layer):
    narrow = random(ROWS, TOKENS, 12)
    with pytest.raises(ValueError, match="x has 12 features, Linear expects 16"):
        layer(narrow)
    for project in (layer.queries, layer.keys_and_values):
        with pytest.raises(ValueError, match="x has 12 features, MultiHeadAttention expects 16"):
            project(narrow)
