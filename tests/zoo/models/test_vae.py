"""Variational autoencoders: codes that are distributions; `parity` has the bound."""

import dataclasses

import jax.numpy as jnp
import pytest
from flax import nnx

import kernels
from tests.close import assert_close
from tests.zoo.compare import by_path, count_parameters, random, randomized, run_on_tokens
from zoo.functional.ops import Ops
from zoo.models.vae import VAE, VAEConfig

CONFIG = VAEConfig(input_shape=(8, 12, 2), latent_dim=5, conv_dims=(3, 4), hidden_dims=(6,))
CLASSES = dataclasses.replace(CONFIG, num_classes=4)
X, NOISE, LABELS = random(3, 8, 12, 2), random(3, 5, seed=1), jnp.array([0, 3, 1])


def build(config=CONFIG, ops: Ops = Ops()) -> VAE:
    return randomized(lambda: VAE(config, rngs=nnx.Rngs(0), ops=ops))


def test_graph_mode_tree_mode_and_kernels_agree():
    class Told(nnx.Module):
        def __init__(self, ops):
            self.vae = VAE(CLASSES, rngs=nnx.Rngs(0), ops=ops)

        def __call__(self, x, noise, labels):
            told, mean, log_var = self.vae(x, noise, labels)
            return jnp.concatenate([told.reshape(3, -1), mean, log_var], -1)

    results = []
    for graph, ops in ((True, Ops()), (False, Ops()), (True, kernels.best())):
        with nnx.set_graph_mode(graph):
            model = randomized(lambda ops=ops: Told(ops))
            results.append(run_on_tokens(model, X, NOISE, LABELS))
    assert_close(results[1], results[0])
    assert_close(results[2], results[0], kind="composite")
    unmoved = {name for name, gradient in results[0][1].items() if not jnp.any(gradient != 0)}
    assert unmoved == {"vae.log_sigma"}  # which is the likelihood's


def test_a_code_is_drawn_from_its_distribution():
    model = build()
    told, mean, log_var = model(X, NOISE)
    assert_close((mean, log_var), model.encode(X))
    assert_close(told, model.decode(mean + jnp.exp(log_var / 2) * NOISE))
    assert_close(model(X, 0 * NOISE)[0], model.decode(mean))
    assert jnp.abs(told).max() < 1


def test_classes_are_told_to_both_halves():
    model, others = build(CLASSES), jnp.array([1, 3, 1])
    for half, x in ((lambda x, y: model.encode(x, y)[0], X), (model.decode, NOISE)):
        first, second = half(x, LABELS), half(x, others)
        assert not jnp.allclose(first[0], second[0])
        assert_close(first[1:], second[1:])


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        # 4·4·2·3+3, 4·4·3·4+4, 24·6+6, 6·10+10; 5·6+6, 6·24+24, 4·4·4·3+3, 4·4·3·2+2; σ.
        ({}, 99 + 196 + 150 + 70 + 36 + 168 + 195 + 98 + 1),
        ({"latent_dim": 7}, 99 + 196 + 150 + 98 + 48 + 168 + 195 + 98 + 1),
        ({"conv_dims": (3,)}, 99 + (72 * 6 + 6) + 70 + 36 + (6 * 72 + 72) + 98 + 1),
        ({"hidden_dims": ()}, 99 + 196 + (24 * 10 + 10) + (5 * 24 + 24) + 195 + 98 + 1),
        ({"num_classes": 4}, 1013 + 4 * 5 + 5 * 10 + 5 * 6),
        ({"input_shape": (4, 4, 2)}, 99 + 196 + 30 + 70 + 36 + 28 + 195 + 98 + 1),
        ({"activation": "tanh"}, 1013),
    ],
)
def test_every_field_counts(change, parameters):
    config = dataclasses.replace(CONFIG, **change)
    model = nnx.eval_shape(lambda: VAE(config, rngs=nnx.Rngs(0)))
    assert count_parameters(model) == parameters
    if change == {"activation": "tanh"}:
        assert not jnp.allclose(build(config)(X, NOISE)[0], build()(X, NOISE)[0])


def test_for_data():
    assert CONFIG.for_data((4, 4, 1), 7).num_classes is None
    assert CLASSES.for_data((4, 4, 1), 7).num_classes == 7
    with pytest.raises(ValueError, match=r"of shape \(height, width, channels\), .* \(30,\)"):
        CONFIG.for_data((30,), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 0}, "latent_dim=0 must be at least 1"),
        ({"num_classes": 0}, "num_classes=0 must be at least 1"),
        ({"activation": "step"}, "activation='step' must be one of"),
        ({"input_shape": (6, 8, 2)}, "a side of 6 pixels cannot be halved 2 times"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_labels_where_they_belong():
    with pytest.raises(ValueError, match="num_classes=None: this VAE wants no labels"):
        build()(X, NOISE, LABELS)
    with pytest.raises(ValueError, match="num_classes=4: this VAE wants a label for each row"):
        build(CLASSES).decode(NOISE)


def test_the_spread_of_pixels_is_one_number():
    assert by_path(nnx.state(build()))["log_sigma"].shape == ()
