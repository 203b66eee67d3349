"""GPT: causality, the cache, the scanned stack, published sizes; `parity` has its twin."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
from tests.close import assert_close
from tests.zoo.compare import by_path, preset_size, randomized
from train.flops import products
from zoo.functional.ops import Ops
from zoo.models.gpt import GPT, GPTConfig

CONFIG = GPTConfig(vocab_size=31, context=12, num_layers=3, num_heads=4, dim=16)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 31, (2, 10)))


@pytest.fixture(scope="module")
def model() -> GPT:
    return randomized(lambda: GPT(CONFIG, rngs=nnx.Rngs(0)))


def scanned(model: GPT, **changes) -> GPT:
    """The same weights in a model that scans over its blocks."""
    config = dataclasses.replace(CONFIG, scan=True, **changes)
    other = nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0)))
    state, blocks = nnx.state(other), nnx.state(model)["blocks"]["blocks"]
    layers = [by_path(blocks[i]) for i in range(CONFIG.num_layers)]
    ours = by_path(nnx.state(model))
    for path, variable in nnx.to_flat_state(state):
        name = ".".join(map(str, path))
        inner = name.removeprefix("blocks.blocks.")
        stacked = name not in ours
        variable.set_value(jnp.stack([layer[inner] for layer in layers]) if stacked else ours[name])
    nnx.update(other, state)
    return other


def test_the_future_is_not_seen(model):
    changed = TOKENS.at[:, 6:].set(0)
    assert_close(model(changed)[:, :6], model(TOKENS)[:, :6])
    assert not np.allclose(model(changed)[:, 6:], model(TOKENS)[:, 6:])


@pytest.mark.parametrize("remat", [False, True])
def test_a_scan_is_the_loop(model, remat):
    other = scanned(model, remat=remat)
    assert_close(other(TOKENS), model(TOKENS))

    def loss(model):
        return jnp.sum(jnp.cos(model(TOKENS)))

    stack = by_path(nnx.grad(loss)(other))["blocks.blocks.mlp.up.kernel"]
    loop = by_path(nnx.grad(loss)(model))
    for layer in range(CONFIG.num_layers):
        assert_close(stack[layer], loop[f"blocks.blocks.{layer}.mlp.up.kernel"], kind="composite")


def test_dropout_draws_the_same_in_a_scan_and_a_loop(model):
    dropping = randomized(
        lambda: GPT(dataclasses.replace(CONFIG, dropout_rate=0.3), rngs=nnx.Rngs(0))
    )
    loop = dropping(TOKENS, rngs=nnx.Rngs(dropout=1))
    scan = scanned(dropping, dropout_rate=0.3)(TOKENS, rngs=nnx.Rngs(dropout=1))
    assert_close(scan, loop)
    assert not np.allclose(loop, dropping(TOKENS, rngs=nnx.Rngs(dropout=2)))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("pieces", [(10,), (4, 1, 5), (1,) * 10])
def test_with_a_cache_the_answer_is_that_of_a_full_pass(model, scan, pieces):
    stepping = scanned(model) if scan else model
    step = jax.jit(lambda tokens, caches: stepping.step(tokens, caches))
    caches, logits, start = stepping.empty_caches(2, 12), [], 0
    for size in pieces:
        piece, caches = step(TOKENS[:, start : start + size], caches)
        logits.append(piece)
        start += size
    assert_close(jnp.concatenate(logits, 1), model(TOKENS))


def test_rows_of_a_cache_have_lengths_of_their_own(model):
    """Prompts of 7 and 4 tokens, padded to 7; then one more token each."""
    lengths = jnp.array([7, 4])
    padded = jnp.where(jnp.arange(7) < lengths[:, None], TOKENS[:, :7], 5)
    step = jax.jit(lambda tokens, caches: model.step(tokens, caches))
    _, caches = step(padded, model.empty_caches(2, 12))
    caches = tuple(dataclasses.replace(cache, length=lengths) for cache in caches)
    logits, _ = step(TOKENS[:, 9:], caches)
    for row, length in enumerate(lengths):
        alone = jnp.concatenate([TOKENS[row, :length], TOKENS[row, 9:]])[None]
        assert_close(logits[row, 0], jax.jit(lambda tokens: model(tokens))(alone)[0, -1])


@pytest.mark.parametrize("ops", [Ops(), kernels.best("cpu")], ids=["reference", "kernels"])
def test_the_products_of_a_forward_pass(ops):
    """Queries, keys and values are one; the kernel of a dense layer sees two-dimensional inputs."""
    model = nnx.eval_shape(lambda: GPT(CONFIG, rngs=nnx.Rngs(0), ops=ops))
    graphdef, state = nnx.split(model)
    program = jax.make_jaxpr(lambda state: nnx.merge(graphdef, state)(TOKENS))(state)
    dense = [
        [operand.aval.shape for operand in product.invars]
        for product, _ in products(program)
        if not product.params["dimension_numbers"][1][0]  # those of attention go over B and N
    ]
    layers, dim = CONFIG.num_layers, CONFIG.dim
    assert Counter(kernel for _, kernel in dense) == {
        (dim, 3 * dim): layers,
        (dim, dim): layers,
        (dim, 4 * dim): layers,
        (4 * dim, dim): layers,
        (dim, CONFIG.vocab_size): 1,
    }
    assert {len(x) for x, _ in dense} == {3 if ops == Ops() else 2}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("gpt2-small", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("gpt3-175b", 174_604_259_328),
    ],
)
def test_published_sizes(name, size):
    assert preset_size(name) == size


def test_attention_can_be_replaced_in_a_view(model):
    """A view with another attention shows the weights of every head."""
    from zoo.functional.attention import attention, attention_weights

    seen = []

    def showing(q, k, v, mask=None, bias=None):
        seen.append(attention_weights(q, k, mask, bias))
        return attention(q, k, v, mask, bias)

    y = nnx.view(model, attention=showing)(TOKENS)
    assert [w.shape for w in seen] == [(2, 4, 10, 10)] * 3
    assert_close(y, model(TOKENS))
    assert len(seen) == 3, "the model itself is unchanged"


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (jnp.zeros((2, 13), jnp.int32), ValueError, "context of 12 tokens, got 13"),
        (jnp.zeros((2, 3)), TypeError, "wants token numbers"),
        (jnp.zeros(3, jnp.int32), ValueError, "2 axes; got 1"),
    ],
)
def test_wrong_inputs_are_named(model, tokens, error, message):
    with pytest.raises(error, match=message):
        model(tokens)


def test_a_cache_longer_than_the_context(model):
    with pytest.raises(ValueError, match="num_tokens=13 is more than the context of 12"):
        model.empty_caches(1, 13)


@pytest.mark.parametrize("scan", [False, True])
def test_a_prompt_longer_than_the_cache(model, scan):
    model = scanned(model) if scan else model
    with pytest.raises(ValueError, match="7 tokens do not fit into a cache of 4"):
        model.step(TOKENS[:, :7], model.empty_caches(2, 4))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="must divide"):
        GPTConfig(dim=10, num_heads=4)
