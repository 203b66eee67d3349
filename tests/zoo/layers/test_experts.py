"""The mixture of experts against a loop over tokens; `parity` has Mixtral's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, random, randomized
from zoo.layers import Experts
from zoo.layers.experts import imbalance

X = random(2, 5, 6)


def build(num_experts: int = 4, experts_per_token: int = 2) -> Experts:
    return randomized(
        lambda: Experts(
            6, 8, num_experts=num_experts, experts_per_token=experts_per_token, rngs=nnx.Rngs(0)
        )
    )


@jax.jit
def run(layer, x):
    return layer(x)


def network(layer: Experts, expert: int, x: np.ndarray) -> np.ndarray:
    gate, up = np.split(x @ np.asarray(layer.up[expert]), 2, -1)
    return (gate / (1 + np.exp(-gate)) * up) @ np.asarray(layer.down[expert])


@pytest.mark.parametrize("experts_per_token", [1, 2, 4])
def test_each_token_is_a_weighted_sum_of_its_likeliest_experts(experts_per_token):
    layer = build(experts_per_token=experts_per_token)
    y, _ = run(layer, X)
    for place in np.ndindex(2, 5):
        x = np.asarray(X[place])
        likely = np.exp(x @ np.asarray(layer.router.kernel[...]))
        chosen = np.argsort(-likely)[:experts_per_token]
        weights = likely[chosen] / likely[chosen].sum()
        expected = sum(w * network(layer, e, x) for w, e in zip(weights, chosen, strict=True))
        assert_close(y[place], expected)


def test_one_expert_is_one_network():
    layer = build(1, 1)
    y, loss = run(layer, X)
    assert_close(y, network(layer, 0, np.asarray(X)))
    assert_close(loss, jnp.ones(()))


def test_an_expert_that_nobody_chooses_has_no_gradient():
    layer = build(experts_per_token=1)
    layer.router.kernel[...] = jnp.zeros((6, 4)).at[:, 2].set(1e3)
    x = jnp.abs(X)  # all choose expert 2
    gradients = jax.jit(nnx.grad(lambda layer: jnp.sum(layer(x)[0])))(layer)
    used = jnp.any(by_path(gradients)["up"] != 0, (1, 2))
    assert used.tolist() == [False, False, True, False]


def test_imbalance_is_least_where_all_are_used_alike():
    even = imbalance(jnp.full(4, 0.5), jnp.full(4, 0.25))
    assert_close(even, jnp.full((), 2.0))  # k, of 2 experts a token
    one = imbalance(jnp.array([1.0, 0, 0, 0]), jnp.array([1.0, 0, 0, 0]))
    assert_close(one, jnp.full((), 4.0))


def test_the_balance_of_a_batch_is_measured_by_the_means_of_its_parts():
    """What goes through `sync`; `tests/train/test_parallel.py` has the gradients of eight parts."""
    layer, x = build(), random(8, 5, 6)
    seen, whole = [], run(layer, x)[1]
    for half in (x[:4], x[4:]):
        view = nnx.view(layer, sync=lambda pair: seen.append(pair) or pair)
        assert not np.allclose(view(half)[1], whole)
    means = jax.tree.map(lambda *parts: sum(parts) / len(parts), *seen)
    assert_close(imbalance(*means), whole)
    mean_of_both = nnx.view(layer, sync=lambda pair: means)
    assert_close(mean_of_both(x[:4])[1], whole)


def test_bfloat16_keeps_its_dtype():
    layer = build()
    y, loss = run(layer, X.astype(jnp.bfloat16))
    assert (y.dtype, loss.dtype) == (jnp.bfloat16, jnp.float32)
    assert_close(y.astype(jnp.float32), run(layer, X)[0], kind="bf16")


def test_each_expert_starts_with_weights_of_its_own():
    layer = Experts(6, 8, num_experts=3, experts_per_token=2, rngs=nnx.Rngs(0))
    assert not np.allclose(layer.up[0], layer.up[1])
    limit = (6 / (6 + 16)) ** 0.5  # of one expert's matrix, whatever the number of experts
    assert 0.9 * limit < jnp.abs(layer.up[...]).max() <= limit


def test_more_choices_than_experts():
    with pytest.raises(ValueError, match=r"experts_per_token=5 must lie in 1 \.\. num_experts=4"):
        build(experts_per_token=5)
