"""Autoencoders: the code between two mirror images; parity compares the layers with PyTorch's."""

import dataclasses

import jax.numpy as jnp
import pytest
from flax import nnx

import kernels
import zoo
from tests.close import assert_close
from tests.zoo.compare import count_parameters, output_shape, random, randomized, run
from zoo.functional.ops import Ops
from zoo.models.autoencoder import Autoencoder, AutoencoderConfig

CONFIG = AutoencoderConfig(input_shape=(8, 12, 2), code_dim=5, conv_dims=(3, 4))


def build(config=CONFIG, ops: Ops = Ops()) -> Autoencoder:
    return randomized(lambda: Autoencoder(config, rngs=nnx.Rngs(0), ops=ops))


def test_graph_mode_tree_mode_and_kernels_agree():
    results = []
    for graph, ops in ((True, Ops()), (False, Ops()), (True, kernels.best())):
        with nnx.set_graph_mode(graph):
            results.append(run(build(ops=ops), random(4, 8, 12, 2)))
    assert_close(results[1]._asdict(), results[0]._asdict())
    assert_close(results[2].output, results[0].output, kind="composite")
    assert_close(results[2].gradients, results[0].gradients, kind="composite")
    assert all(jnp.any(gradient != 0) for gradient in results[0].gradients.values())


def test_all_passes_through_the_code():
    model, x = build(), random(4, 8, 12, 2)
    code = model.encode(x)
    assert code.shape == (4, 5)
    assert_close(model.decode(code), model(x))


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        # 4·4·2·3+3, 4·4·3·4+4 and 2·3·4·5+5 there; 5·24+24, 4·4·4·3+3 and 4·4·3·2+2 back.
        ({}, 99 + 196 + 125 + 144 + 195 + 98),
        ({"code_dim": 7}, 99 + 196 + 175 + 192 + 195 + 98),
        ({"conv_dims": (3,)}, 99 + (72 * 5 + 5) + (5 * 72 + 72) + 98),
        ({"conv_dims": ()}, (192 * 5 + 5) + (5 * 192 + 192)),
        ({"conv_dims": (), "hidden_dims": (9,)}, 1737 + 50 + 54 + 1920),
        ({"input_shape": (4, 4, 2)}, 99 + 196 + 25 + 24 + 195 + 98),
        ({"activation": "tanh"}, 857),
    ],
)
def test_every_field_counts(change, parameters):
    config = dataclasses.replace(CONFIG, **change)
    model = nnx.eval_shape(lambda: Autoencoder(config, rngs=nnx.Rngs(0)))
    assert count_parameters(model) == parameters
    assert output_shape(model, 3, *config.input_shape) == (3, *config.input_shape)
    if change == {"activation": "tanh"}:
        assert not jnp.allclose(build(config)(random(2, 8, 12, 2)), build()(random(2, 8, 12, 2)))


def test_the_dense_one_is_the_paper_s():
    config = zoo.config("autoencoder-dense")
    assert (config.conv_dims, config.hidden_dims, config.code_dim) == ((), (1000, 500, 250), 30)


def test_a_series_needs_no_convolutions():
    config = dataclasses.replace(CONFIG, conv_dims=(), hidden_dims=(6,)).for_data((20,), 2)
    assert output_shape(build(config), 3, 20) == (3, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code_dim": 0}, "code_dim=0 must be at least 1"),
        ({"conv_dims": (3, 0)}, r"conv_dims=\(3, 0\) must be at least 1"),
        ({"hidden_dims": (0,)}, "hidden_dims"),
        ({"input_shape": (8, 0, 2)}, "input_shape"),
        ({"activation": "step"}, "activation='step' must be one of"),
        (
            {"input_shape": (8, 10, 2)},
            "a side of 10 pixels cannot be halved 2 times.* use 8",
        ),
        ({"input_shape": (20,)}, r"convolutions want images .* \(20,\); use conv_dims=\(\)"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_inputs_of_another_shape():
    with pytest.raises(ValueError, match=r"axis 2 \(width\) is 8 instead of 12"):
        build()(random(2, 8, 8, 2))
    with pytest.raises(TypeError, match="floating-point"):
        build()(jnp.zeros((2, 8, 12, 2), jnp.uint8))
