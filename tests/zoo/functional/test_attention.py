"""Attention against stock JAX and its own definition, positions against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.attention import Mask, attention, attention_weights
from zoo.functional.position import alibi, rotary, sinusoidal


def qkv(heads: int = 4, kv_heads: int = 4, queries: int = 5, keys: int = 7):
    shapes = (2, queries, heads, 8), (2, keys, kv_heads, 8), (2, keys, kv_heads, 8)
    return [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]


LENGTHS = jnp.array([7, 3])
SEGMENTS = jnp.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]), jnp.array([[0, 1, 1, 0, 0, 1, 1]] * 2)
SAME = (SEGMENTS[0][:, :, None] == SEGMENTS[1][:, None])[:, None]
MASKS = {  # ours, and the same for stock JAX
    "nothing": (None, {}),
    "an array": (SAME, {"mask": SAME}),
    "causal": (Mask(causal=True), {"is_causal": True}),
    "lengths": (Mask(lengths=LENGTHS), {"key_value_seq_lengths": LENGTHS}),
    "segments": (Mask(segments=SEGMENTS), {"mask": SAME}),
    "causal lengths": (
        Mask(causal=True, lengths=LENGTHS),
        {"is_causal": True, "key_value_seq_lengths": LENGTHS},
    ),
}


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_stock_jax(kv_heads, masked, biased):
    arrays = qkv(kv_heads=kv_heads)
    mask, rules = MASKS[masked]
    bias = random(2, 4, 5, 7, seed=9) if biased else None

    def stock(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, bias=bias, **rules)

    def both(function):
        y, backward = jax.vjp(function, *arrays)
        return y, backward(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    assert_close(both(lambda q, k, v: attention(q, k, v, mask, bias)), both(stock))


def test_the_formula():
    q, k, v = (x[0, :, 0] for x in qkv())
    scores = np.exp(np.asarray(q) @ np.asarray(k).T / np.sqrt(8))
    expected = scores / scores.sum(-1, keepdims=True) @ np.asarray(v)
    assert_close(attention(*(x[None, :, None] for x in (q, k, v)))[0, :, 0], expected)


def test_weights_sum_to_one_and_a_query_without_keys_gets_zero():
    q, k, v = qkv()
    mask = Mask(lengths=jnp.array([4, 0]))
    weights = attention_weights(q, k, mask)
    assert_close(weights[0].sum(-1), np.ones((4, 5)))
    assert not weights[0, ..., 4:].any() and not weights[1].any()
    gradient = jax.grad(lambda q: attention(q, k, v, mask).sum())(q)
    assert jnp.isfinite(gradient).all() and not gradient[1].any()


def test_a_causal_mask_hides_the_future():
    q, k, v = qkv(queries=7)
    changed = v.at[:, 4:].set(0)
    causal = Mask(causal=True)
    before = attention(q, k, v, causal), attention(q, k, changed, causal)
    assert_close(before[0][:, :4], before[1][:, :4])
    assert not np.allclose(before[0][:, 4:], before[1][:, 4:])


def test_without_positions_the_order_of_keys_does_not_matter():
    q, k, v = qkv()
    order = np.array([3, 1, 6, 0, 2, 5, 4])
    assert_close(attention(q, k[:, order], v[:, order]), attention(q, k, v))


def test_bfloat16_keeps_its_dtype():
    arrays = [x.astype(jnp.bfloat16) for x in qkv()]
    y = attention(*arrays)
    assert y.dtype == jnp.bfloat16
    assert_close(y.astype(jnp.float32), attention(*qkv()), kind="bf16")


def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="3 key/value heads do not divide 4 query heads"):
        attention(*qkv(kv_heads=3))


def test_sinusoidal_positions():
    table = sinusoidal(9, 6)
    for t, i in ((0, 0), (5, 1), (8, 2)):
        assert_close(table[t, 2 * i], np.sin(t / 10000 ** (2 * i / 6)))
        assert_close(table[t, 2 * i + 1], np.cos(t / 10000 ** (2 * i / 6)))
    with pytest.raises(ValueError, match="dim=5 must be even"):
        sinusoidal(9, 5)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_is_a_complex_product_and_sees_only_distances(interleaved):
    x = random(1, 6, 2, 8)
    positions = jnp.arange(6)[None]
    turned = np.asarray(rotary(x, positions, interleaved=interleaved))
    pairs = (
        np.asarray(x).reshape(1, 6, 2, 4, 2) if interleaved else np.stack(np.split(x, 2, -1), -1)
    )
    angles = np.arange(6)[:, None] * 10000.0 ** (-np.arange(4) / 4)
    product = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)[None, :, None]
    expected = np.stack([product.real, product.imag], -1)
    if interleaved:
        expected = expected.reshape(x.shape)
    else:
        expected = np.concatenate([expected[..., 0], expected[..., 1]], -1)
    assert_close(turned, expected)

    def products(shift):
        q, k = (rotary(random(1, 6, 2, 8, seed=s), positions + shift) for s in (0, 1))
        return jnp.einsum("btnh,bsnh->bnts", q, k)

    assert_close(products(11), products(0), kind="composite")


def test_alibi_penalises_distance():
    bias = alibi(8, 4)
    assert bias.shape == (1, 8, 4, 4)
    assert_close(bias[0, 0, 3], [-1.5, -1.0, -0.5, 0.0])  # the paper's first slope of 8 is 1/2
    assert_close(bias[0, 7, 3], np.array([-3, -2, -1, 0]) / 256)
