"""What every model keeps: its front door, its modes, its configs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.zoo.compare import count_parameters, output_shape, random, randomized, run
from zoo.functional.activation import ACTIVATIONS
from zoo.models.convnet import ConvNet, ConvNetConfig
from zoo.models.linear import (
    LinearRegression,
    LinearRegressionConfig,
    LogisticRegression,
    LogisticRegressionConfig,
)
from zoo.models.mlp import MLP, MLPConfig
from zoo.models.resnet import ResNet, ResNetConfig

# A small config of each model, and the shape of its inputs.
SMALL = {
    LinearRegression: (LinearRegressionConfig(num_features=5, num_outputs=2), (6, 5)),
    LogisticRegression: (LogisticRegressionConfig(num_features=5, num_classes=3), (6, 5)),
    MLP: (MLPConfig(input_shape=(4, 4, 2), hidden_dims=(8, 6), num_classes=3), (6, 4, 4, 2)),
    ConvNet: (
        ConvNetConfig(
            image_size=(9, 6), in_channels=2, conv_dims=(4, 6), dense_dim=8, num_classes=3
        ),
        (6, 9, 6, 2),
    ),
    ResNet: (
        ResNetConfig(stage_sizes=(1, 1), width=4, stem="cifar", in_channels=2, num_classes=3),
        (6, 8, 9, 2),
    ),
}
MODELS = pytest.mark.parametrize("model_class", SMALL)


def build(model_class, **changes):
    config = dataclasses.replace(SMALL[model_class][0], **changes)
    return randomized(lambda: zoo.build(config, rngs=nnx.Rngs(0)))


@MODELS
def test_build_finds_the_class_of_a_config(model_class):
    model = build(model_class)
    assert type(model) is model_class
    assert model.config == SMALL[model_class][0]


@MODELS
def test_logits_have_one_row_an_example(model_class):
    config, shape = SMALL[model_class]
    outputs = getattr(config, "num_classes", None) or config.num_outputs
    assert output_shape(build(model_class), *shape) == (6, outputs)


@MODELS
def test_graph_mode_and_tree_mode_agree(model_class):
    x = random(*SMALL[model_class][1])
    results = []
    for graph in (True, False):
        with nnx.set_graph_mode(graph):
            results.append(run(build(model_class), x)._asdict())
    assert_close(results[0], results[1])


@MODELS
def test_every_parameter_gets_a_gradient(model_class):
    gradients = run(build(model_class), random(*SMALL[model_class][1])).gradients
    assert gradients
    for name, gradient in gradients.items():
        assert jnp.any(gradient != 0), name


@MODELS
def test_a_view_for_evaluation_changes_nothing(model_class):
    model = build(model_class)
    view = nnx.view(model, deterministic=True, raise_if_not_found=False)
    result = run(view, random(*SMALL[model_class][1]))
    assert_close(result.statistics, run(view, 2 + random(*SMALL[model_class][1])).statistics)


@MODELS
def test_bfloat16_inputs_give_bfloat16_logits_near_the_float32_ones(model_class):
    x = random(*SMALL[model_class][1])
    model = nnx.view(build(model_class), deterministic=True, raise_if_not_found=False)
    exact, result = run(model, x), run(model, x.astype(jnp.bfloat16))
    assert result.output.dtype == jnp.bfloat16
    assert {gradient.dtype for gradient in result.gradients.values()} == {jnp.dtype("float32")}
    assert_close(result.output, exact.output, kind="bf16")


@MODELS
def test_integer_inputs_are_sent_to_standardize(model_class):
    x = jnp.zeros(SMALL[model_class][1], jnp.uint8)
    with pytest.raises(
        TypeError, match=rf"{model_class.__name__} wants float.* uint8.*Standardize"
    ):
        build(model_class)(x)


@MODELS
def test_the_wrong_axis_is_named(model_class):
    *shape, last = SMALL[model_class][1]
    name = model_class.__name__
    with pytest.raises(ValueError, match=rf"{name} .*axis {len(shape)} .*is {last + 1} instead"):
        build(model_class)(random(*shape, last + 1))
    with pytest.raises(
        ValueError, match=rf"{name} wants inputs \[batch, .*\], {len(shape) + 1} axes"
    ):
        build(model_class)(random(*shape, last, 1))


@MODELS
def test_for_data_takes_what_the_data_decide(model_class):
    config, (_, *shape) = SMALL[model_class]
    config = config.for_data((*shape[:-1], shape[-1] + 1), 7)
    model = randomized(lambda: zoo.build(config, rngs=nnx.Rngs(0)))
    assert output_shape(model, 3, *shape[:-1], shape[-1] + 1) == (3, 7)


@pytest.mark.parametrize("config", [ConvNetConfig(), ResNetConfig()])
def test_image_models_refuse_data_without_images(config):
    with pytest.raises(ValueError, match=r"for examples of shape \(height.* are of shape \(30,\)"):
        config.for_data((30,), 2)


def test_linear_models_refuse_images():
    for config in (LinearRegressionConfig(), LogisticRegressionConfig()):
        with pytest.raises(ValueError, match=r"shape \(features,\), .* shape \(28, 28, 1\)"):
            config.for_data((28, 28, 1), 2)


# Every field, a value that differs from the small config's, and the number of parameters that the
# model then has, or None where it stays.
CHANGES = [
    (LinearRegression, "num_features", 7, 16),
    (LinearRegression, "num_outputs", 4, 24),
    (LogisticRegression, "num_features", 7, 24),
    (LogisticRegression, "num_classes", 2, 12),
    (MLP, "input_shape", (4, 2), 72 + 54 + 21),
    (MLP, "hidden_dims", (8,), 264 + 27),
    (MLP, "hidden_dims", (), 99),
    (MLP, "num_classes", 5, 264 + 54 + 35),
    (MLP, "activation", "tanh", None),
    (MLP, "dropout_rate", 0.5, None),
    (ConvNet, "image_size", (12, 12), 76 + 222 + 440 + 27),
    (ConvNet, "in_channels", 3, 112 + 222 + 104 + 27),
    (ConvNet, "conv_dims", (4,), 76 + 392 + 27),
    (ConvNet, "dense_dim", 9, 76 + 222 + 117 + 30),
    (ConvNet, "num_classes", 4, 76 + 222 + 104 + 36),
    (ConvNet, "dropout_rate", 0.5, None),
    (ResNet, "block", "bottleneck", 80 + (16 + 8 + 144 + 8 + 64 + 32 + 64 + 32)
     + (128 + 16 + 576 + 16 + 256 + 64 + 512 + 64) + 99),
    (ResNet, "stage_sizes", (2, 1), 80 + 2 * 304 + (288 + 576 + 32 + 32 + 16) + 27),
    (ResNet, "width", 2, 40 + 80 + (72 + 144 + 16 + 8 + 8) + 15),
    (ResNet, "stem", "imagenet", 400 + 304 + (288 + 576 + 32 + 32 + 16) + 27),
    (ResNet, "in_channels", 3, 116 + 304 + (288 + 576 + 32 + 32 + 16) + 27),
    (ResNet, "num_classes", 4, 80 + 304 + (288 + 576 + 32 + 32 + 16) + 36),
    (ResNet, "zero_init_last_scale", False, None),
    (ResNet, "norm_decay", 0.5, None),
]  # fmt: skip


def test_the_table_of_changes_names_every_field():
    fields = {(cls, f.name) for cls in SMALL for f in dataclasses.fields(SMALL[cls][0])}
    assert {(cls, name) for cls, name, _, _ in CHANGES} == fields


@pytest.mark.parametrize(("model_class", "field", "value", "count"), CHANGES)
def test_every_field_changes_the_model(model_class, field, value, count):
    def parameters(config):
        model = nnx.eval_shape(lambda: zoo.build(config, rngs=nnx.Rngs(0)))
        return count_parameters(model)

    before = SMALL[model_class][0]
    after = dataclasses.replace(before, **{field: value})
    assert before != after
    assert parameters(after) == (count or parameters(before))


def test_the_activation_is_used():
    x = random(6, 4, 4, 2)
    outputs = [build(MLP, activation=name)(x) for name in ACTIVATIONS]
    for index, output in enumerate(outputs):
        assert not any(jnp.allclose(output, other) for other in outputs[:index])


@pytest.mark.parametrize("model_class", [MLP, ConvNet])
def test_dropout_is_on_in_training_only_and_asks_for_its_key(model_class):
    model, x = build(model_class, dropout_rate=0.5), random(*SMALL[model_class][1])
    plain = run(build(model_class), x).output
    assert_close(run(nnx.view(model, deterministic=True), x).output, plain)
    dropped = model(x, rngs=nnx.Rngs(dropout=0))
    assert not jnp.allclose(dropped, plain)
    assert_close(model(x, rngs=nnx.Rngs(dropout=0)), dropped)
    with pytest.raises(ValueError, match=r"dropout at rate 0\.5 needs random numbers"):
        model(x)


@pytest.mark.parametrize(("config", "changes", "message"), [
    (LinearRegressionConfig, {"num_features": 0}, "num_features=0 must be at least 1"),
    (LogisticRegressionConfig, {"num_classes": -1}, "num_classes=-1 must be at least 1"),
    (MLPConfig, {"hidden_dims": (4, 0)}, r"hidden_dims=\(4, 0\) must be at least 1"),
    (MLPConfig, {"activation": "gelu"}, r"activation='gelu' must be one of .*gelu_erf, gelu_tanh"),
    (MLPConfig, {"dropout_rate": 1.0}, r"dropout_rate=1.0 must lie in \[0, 1\)"),
    (ConvNetConfig, {"image_size": (3, 28)}, r"too small for 2 poolings.* at least 4 pixels"),
    (ConvNetConfig, {"dropout_rate": -0.5}, "dropout_rate=-0.5"),
    (ResNetConfig, {"block": "wide"}, "block='wide' must be one of basic, bott|Expected type"),
    (ResNetConfig, {"stem": "mnist"}, "stem='mnist' must be one of imagenet, c|Expected type"),
    (ResNetConfig, {"stage_sizes": ()}, "at least one stage"),
    (ResNetConfig, {"norm_decay": 1.0}, "norm_decay=1.0"),
])  # fmt: skip
def test_a_wrong_value_is_named(config, changes, message):
    # Where the annotation lists the values, the type checker of these tests is the first to object.
    with pytest.raises((ValueError, TypeError), match=message):
        config(**changes)


def test_linear_models_start_at_zero():
    for name in ("linear-regression", "logistic-regression"):
        model = zoo.create(name, rngs=nnx.Rngs(0), num_features=3)
        assert_close(model(random(4, 3)), jnp.zeros((4, model.linear.bias.size)))


def test_two_class_softmax_is_the_sigmoid_of_the_difference():
    model = build(LogisticRegression, num_classes=2)
    logits = model(random(4, 5))
    expected = jax.nn.sigmoid(logits[:, 1] - logits[:, 0])
    assert_close(jax.nn.softmax(logits)[:, 1], expected)


def test_convnet_pools_away_the_position():
    """Shifting by one pixel within a pooling window moves no maximum out of it."""
    model = randomized(lambda: ConvNet(ConvNetConfig(conv_dims=(4,)), rngs=nnx.Rngs(0)))
    image = jnp.zeros((1, 28, 28, 1)).at[0, 10, 10].set(1.0)
    convolved = model.convs[0](image)
    shifted = model.convs[0](jnp.roll(image, 1, axis=2))
    assert_close(jnp.roll(convolved, 1, axis=2), shifted)
