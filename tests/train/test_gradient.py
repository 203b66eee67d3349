"""Gradients against closed forms, under micro-batches, bfloat16 and synchronisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from train.gradient import value_and_grad
from train.sync import Sync
from zoo.layers import BatchNorm, Dropout, Linear
from zoo.models.linear import LinearRegression, LinearRegressionConfig
from zoo.models.mlp import MLP, MLPConfig

KEY = jax.random.key(3)


def batch_of(rows: int, columns: int = 5, seed: int = 0) -> dict[str, jax.Array]:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(rows, columns)), generator.normal(size=rows)
    return {"inputs": jnp.asarray(x, jnp.float32), "targets": jnp.asarray(y, jnp.float32)}


def squared_error(model, batch, key):
    """Mean squared error of the first output; the mean absolute error beside it."""
    difference = model(batch["inputs"], rngs=nnx.Rngs(dropout=key))[:, 0] - batch["targets"]
    absolute = jnp.abs(difference).mean().astype(jnp.float32)
    return jnp.square(difference).mean().astype(jnp.float32), {"train/mae": absolute}


def regression() -> LinearRegression:
    model = LinearRegression(LinearRegressionConfig(num_features=5), rngs=nnx.Rngs(0))
    model.linear.kernel[...] = jnp.arange(1.0, 6.0)[:, None]
    return model


def mlp(dropout_rate: float = 0.0) -> MLP:
    config = MLPConfig(input_shape=(5,), hidden_dims=(8,), num_classes=1, dropout_rate=dropout_rate)
    return MLP(config, rngs=nnx.Rngs(1))


class Normed(nnx.Module):
    """Dense, batch norm, dropout: every kind of state that a forward pass can have."""

    def __init__(self, rate: float = 0.0):
        self.dense = Linear(5, 4, rngs=nnx.Rngs(2))
        self.norm = BatchNorm(4)
        self.dropout = Dropout(rate)

    def __call__(self, x, *, rngs=None):
        return self.dropout(self.norm(self.dense(x)), rngs=rngs)


def test_closed_form_of_linear_regression():
    model, batch = regression(), batch_of(16)
    metrics, grads = value_and_grad(squared_error, model, batch, KEY, sync=Sync())
    x, y = (np.asarray(batch[name], np.float64) for name in ("inputs", "targets"))
    residual = x @ np.arange(1.0, 6.0) - y
    assert_close(grads.linear.kernel[...][:, 0], 2 / 16 * x.T @ residual)
    assert_close(grads.linear.bias[...], [2 / 16 * residual.sum()])
    assert_close(metrics["train/loss"], np.mean(residual**2))
    assert_close(metrics["train/mae"], np.mean(np.abs(residual)))


def test_finite_differences_of_a_network_with_dropout():
    """Along one random direction: (L(w + hd) - L(w - hd)) / 2h, with the same units dropped."""
    model, batch = mlp(dropout_rate=0.4), batch_of(8)
    _, grads = value_and_grad(squared_error, model, batch, KEY, sync=Sync())
    graphdef, params = nnx.split(model)
    leaves, tree = jax.tree.flatten(params)
    generator = np.random.default_rng(4)
    direction = [jnp.asarray(generator.normal(size=leaf.shape), jnp.float32) for leaf in leaves]

    def loss_at(h: float) -> float:
        moved = [leaf + h * d for leaf, d in zip(leaves, direction, strict=True)]
        live = nnx.merge(graphdef, jax.tree.unflatten(tree, moved))
        return float(squared_error(live, batch, KEY)[0])

    h = 1e-3
    slope = sum(
        float((g * d).sum()) for g, d in zip(jax.tree.leaves(grads), direction, strict=True)
    )
    # A difference of float32 losses over 2e-3 keeps about three digits.
    assert abs((loss_at(h) - loss_at(-h)) / (2 * h) - slope) < 5e-3 * abs(slope)


@pytest.mark.parametrize("num_microbatches", [2, 4])
def test_micro_batches_give_the_gradient_of_the_whole(num_microbatches):
    model, batch = mlp(), batch_of(16)
    whole = value_and_grad(squared_error, model, batch, KEY, sync=Sync())
    pieces = value_and_grad(
        squared_error, model, batch, KEY, sync=Sync(), num_microbatches=num_microbatches
    )
    assert_close(pieces[0], whole[0])
    assert_close(nnx.to_pure_dict(pieces[1]), nnx.to_pure_dict(whole[1]))


def test_each_micro_batch_draws_its_own_key():
    seen = []

    def loss(model, batch, key):
        jax.debug.callback(lambda data: seen.append(bytes(data)), jax.random.key_data(key))
        return squared_error(model, batch, key)

    value_and_grad(loss, mlp(), batch_of(16), KEY, sync=Sync(), num_microbatches=4)
    jax.effects_barrier()
    assert len(set(seen)) == 4


@pytest.mark.parametrize("num_microbatches", [1, 2, 4])
def test_statistics_pass_through_the_micro_batches(num_microbatches):
    model, batch = Normed(), batch_of(16)
    hidden = np.asarray(model.dense(batch["inputs"]), np.float64)
    mean, var = np.zeros(4), np.ones(4)
    for piece in np.split(hidden, num_microbatches):
        mean = 0.9 * mean + 0.1 * piece.mean(0)
        var = 0.9 * var + 0.1 * piece.var(0)
    value_and_grad(squared_error, model, batch, KEY, sync=Sync(), num_microbatches=num_microbatches)
    assert_close(model.norm.mean[...], mean)
    assert_close(model.norm.var[...], var)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_the_statistics_of_a_model_under_jit(graph, num_microbatches):
    """Where the step is traced, and where the model is a view, as a task calls it."""
    batch = batch_of(8)

    @jax.jit
    def step(state):
        model = nnx.merge(graphdef, state)
        _, grads = value_and_grad(
            squared_error,
            nnx.view(model, deterministic=False),
            batch,
            KEY,
            sync=Sync(),
            num_microbatches=num_microbatches,
        )
        return nnx.state(model), grads

    eager = Normed(rate=0.5)
    value_and_grad(squared_error, eager, batch, KEY, sync=Sync(), num_microbatches=num_microbatches)
    with nnx.set_graph_mode(graph):
        graphdef, state = nnx.split(Normed(rate=0.5))
        after, grads = step(state)
    assert_close(nnx.to_pure_dict(after), nnx.to_pure_dict(nnx.state(eager)))
    assert set(nnx.to_pure_dict(grads)) == {"dense", "norm"}


@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_bfloat16_computes_in_bfloat16_and_returns_float32(num_microbatches):
    model, batch, seen = mlp(), batch_of(32), set()

    def loss(model, batch, key):
        seen.add(model.classifier.kernel[...].dtype)
        inputs = batch["inputs"].astype(model.classifier.kernel[...].dtype)
        return squared_error(model, {**batch, "inputs": inputs}, key)

    keywords = {"sync": Sync(), "num_microbatches": num_microbatches}
    expected = value_and_grad(loss, model, batch, KEY, **keywords)
    assert seen == {jnp.dtype("float32")}
    seen.clear()
    metrics, grads = value_and_grad(loss, model, batch, KEY, dtype=jnp.bfloat16, **keywords)
    assert seen == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    assert_close(metrics, expected[0], kind="bf16")
    assert_close(nnx.to_pure_dict(grads), nnx.to_pure_dict(expected[1]), kind="bf16")


def test_bfloat16_leaves_the_statistics_in_float32():
    model, batch = Normed(), batch_of(16)

    def loss(model, batch, key):
        inputs = batch["inputs"].astype(jnp.bfloat16)
        return squared_error(model, {**batch, "inputs": inputs}, key)

    value_and_grad(loss, model, batch, KEY, sync=Sync(), dtype=jnp.bfloat16, num_microbatches=2)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}


def test_sync_sees_metrics_and_gradients_once():
    class Doubled(Sync):
        def __call__(self, tree):
            return jax.tree.map(lambda x: 2 * x, tree)

    model, batch = regression(), batch_of(8)
    plain = value_and_grad(squared_error, model, batch, KEY, sync=Sync())
    for num_microbatches in (1, 4):
        doubled = value_and_grad(
            squared_error,
            model,
            batch,
            KEY,
            sync=Doubled(),
            num_microbatches=num_microbatches,
        )
        for ours, theirs in zip(jax.tree.leaves(doubled), jax.tree.leaves(plain), strict=True):
            assert_close(ours, 2 * theirs)
