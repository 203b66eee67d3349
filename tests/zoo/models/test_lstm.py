"""LSTM models: padding, carried state, the front door, and every field of their configs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import kernels
import zoo
from tests.close import assert_close
from tests.zoo.compare import by_path, count_parameters, random, randomized, weighting
from zoo.functional.ops import Ops
from zoo.models.lstm import (
    LSTMClassifier,
    LSTMClassifierConfig,
    LSTMLanguageModel,
    LSTMLanguageModelConfig,
    StackedLSTM,
    StackedLSTMConfig,
)

BATCH, STEPS = 3, 5
SMALL = {
    StackedLSTM: StackedLSTMConfig(in_channels=2, hidden_dims=(4, 3), num_classes=3),
    LSTMClassifier: LSTMClassifierConfig(vocab_size=7, embed_dim=2, lstm_dim=4),
    LSTMLanguageModel: LSTMLanguageModelConfig(vocab_size=7, dim=4),
}
OUTPUTS = {
    StackedLSTM: (BATCH, 3),
    LSTMClassifier: (BATCH, 1),
    LSTMLanguageModel: (BATCH, STEPS, 7),
}
MODELS = pytest.mark.parametrize("model_class", SMALL)
TOKENS = jnp.arange(BATCH * STEPS).reshape(BATCH, STEPS) * 5 % 7
LENGTHS = jnp.array([5, 2, 3])


def inputs(model_class):
    return random(BATCH, STEPS, 2) if model_class is StackedLSTM else TOKENS


def build(model_class, ops=Ops(), **changes):
    config = dataclasses.replace(SMALL[model_class], **changes)
    return randomized(lambda: zoo.build(config, rngs=nnx.Rngs(0), ops=ops))


def call(model, x, lengths=None, rngs=None):
    return nnx.jit(lambda model, x, lengths, rngs: model(x, lengths=lengths, rngs=rngs))(
        model, x, lengths, rngs
    )


def output_and_gradients(model, x, lengths):
    """The output, and the gradient of its weighting in every parameter."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def everything(params):
        y, backward = jax.vjp(lambda p: nnx.merge(graphdef, p, rest)(x, lengths=lengths), params)
        return y, backward(jnp.asarray(weighting(y.shape)))[0]

    y, gradients = everything(params)
    return y, by_path(gradients)


@MODELS
def test_the_logits_have_the_documented_shape(model_class):
    model = build(model_class)
    assert call(model, inputs(model_class)).shape == OUTPUTS[model_class]


@MODELS
def test_graph_mode_tree_mode_and_kernels_agree(model_class):
    results = []
    for graph, ops in ((True, Ops()), (False, Ops()), (True, kernels.best())):
        with nnx.set_graph_mode(graph):
            model = build(model_class, ops=ops)
            results.append(output_and_gradients(model, inputs(model_class), LENGTHS))
    assert_close(results[1], results[0])
    assert_close(results[2], results[0], kind="composite")


@MODELS
def test_every_parameter_gets_a_gradient(model_class):
    _, gradients = output_and_gradients(build(model_class), inputs(model_class), None)
    for name, gradient in gradients.items():
        assert jnp.any(gradient != 0), name


@MODELS
def test_padding_never_changes_an_answer(model_class):
    """Each sequence alone and whole gives the same as padded among longer ones."""
    model, x = build(model_class), inputs(model_class)
    together = call(model, x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = call(model, x[row : row + 1, :length])
        expected = together[row : row + 1]
        if model_class is LSTMLanguageModel:
            expected = expected[:, :length]
        assert_close(alone, expected)


@MODELS
def test_all_lengths_full_is_no_lengths(model_class):
    model, x = build(model_class), inputs(model_class)
    assert_close(call(model, x, jnp.full(BATCH, STEPS)), call(model, x))


def test_the_language_model_reads_on_where_it_stopped():
    model = build(LSTMLanguageModel)
    whole = call(model, TOKENS)
    state = model.initial_state(BATCH)
    step = nnx.jit(lambda model, tokens, state: model.step(tokens, state))
    parts = []
    for cut in (TOKENS[:, :2], TOKENS[:, 2:3], TOKENS[:, 3:]):
        logits, state = step(model, cut, state)
        parts.append(logits)
    assert_close(jnp.concatenate(parts, axis=1), whole)


def test_the_language_model_sees_no_later_token():
    model = build(LSTMLanguageModel)
    changed = TOKENS.at[:, 3].add(1) % 7
    before, after = call(model, TOKENS), call(model, changed)
    assert jnp.array_equal(before[:, :3], after[:, :3])
    assert not jnp.allclose(before[:, 3:], after[:, 3:])


def test_tied_weights_are_one_parameter():
    model = build(LSTMLanguageModel)
    logits, gradients = output_and_gradients(model, TOKENS, None)
    assert not any(name.startswith("output") for name in gradients)
    untied = build(LSTMLanguageModel, tie_embeddings=False)
    nnx.update(untied.lstm, nnx.state(model.lstm))
    untied.embed.table.set_value(model.embed.table[...])
    untied.output.kernel.set_value(model.embed.table.T)
    untied.output.bias.set_value(model.bias[...])
    expected, parts = output_and_gradients(untied, TOKENS, None)
    assert_close(logits, expected)
    assert_close(gradients["embed.table"], parts["embed.table"] + parts["output.kernel"].T)


@MODELS
def test_bfloat16_weights_inside_a_float32_state(model_class):
    """Real-valued inputs decide the dtype; tokens are looked up in float32."""
    x = inputs(model_class)
    exact = call(build(model_class), x)
    if model_class is StackedLSTM:
        low = call(build(model_class), x.astype(jnp.bfloat16))
        assert low.dtype == jnp.bfloat16
        assert_close(low, exact, kind="bf16")
    else:
        assert exact.dtype == jnp.float32


@MODELS
def test_dropout_is_on_in_training_only_and_asks_for_its_key(model_class):
    model, x = build(model_class, dropout_rate=0.5), inputs(model_class)
    plain = call(build(model_class), x)
    assert_close(call(nnx.view(model, deterministic=True), x), plain)
    dropped = call(model, x, rngs=nnx.Rngs(dropout=0))
    assert not jnp.allclose(dropped, plain)
    assert_close(call(model, x, rngs=nnx.Rngs(dropout=0)), dropped)
    with pytest.raises(ValueError, match=r"dropout at rate 0\.5 needs random numbers"):
        model(x)


def lstm_size(in_dim, dim):
    return (in_dim + dim + 1) * 4 * dim


# Every field, another value, and the number of parameters that the model then has.
CHANGES = [
    (StackedLSTM, "in_channels", 5, lstm_size(5, 4) + lstm_size(4, 3) + 12),
    (StackedLSTM, "hidden_dims", (6,), lstm_size(2, 6) + 21),
    (StackedLSTM, "num_classes", 4, lstm_size(2, 4) + lstm_size(4, 3) + 16),
    (StackedLSTM, "dropout_rate", 0.5, lstm_size(2, 4) + lstm_size(4, 3) + 12),
    (StackedLSTM, "forget_bias", 0.0, lstm_size(2, 4) + lstm_size(4, 3) + 12),
    (LSTMClassifier, "vocab_size", 9, 18 + lstm_size(2, 4) + 5),
    (LSTMClassifier, "embed_dim", 3, 21 + lstm_size(3, 4) + 5),
    (LSTMClassifier, "lstm_dim", 5, 14 + lstm_size(2, 5) + 6),
    (LSTMClassifier, "num_outputs", 3, 14 + lstm_size(2, 4) + 15),
    (LSTMClassifier, "dropout_rate", 0.5, 14 + lstm_size(2, 4) + 5),
    (LSTMClassifier, "forget_bias", 0.0, 14 + lstm_size(2, 4) + 5),
    (LSTMLanguageModel, "vocab_size", 9, 36 + 2 * lstm_size(4, 4) + 9),
    (LSTMLanguageModel, "dim", 3, 21 + 2 * lstm_size(3, 3) + 7),
    (LSTMLanguageModel, "num_layers", 3, 28 + 3 * lstm_size(4, 4) + 7),
    (LSTMLanguageModel, "tie_embeddings", False, 28 + 2 * lstm_size(4, 4) + 35),
    (LSTMLanguageModel, "dropout_rate", 0.5, 28 + 2 * lstm_size(4, 4) + 7),
    (LSTMLanguageModel, "forget_bias", 0.0, 28 + 2 * lstm_size(4, 4) + 7),
]


def test_the_table_of_changes_names_every_field():
    fields = {(cls, f.name) for cls in SMALL for f in dataclasses.fields(SMALL[cls])}
    assert {(cls, name) for cls, name, _, _ in CHANGES} == fields


@pytest.mark.parametrize(("model_class", "field", "value", "count"), CHANGES)
def test_every_field_changes_the_model(model_class, field, value, count):
    config = dataclasses.replace(SMALL[model_class], **{field: value})
    model = nnx.eval_shape(lambda: zoo.build(config, rngs=nnx.Rngs(0)))
    assert config != SMALL[model_class]
    assert count_parameters(model) == count


@MODELS
def test_forget_bias_raises_the_forget_gates(model_class):
    biases = []
    for bias in (0.0, 2.0):
        config = dataclasses.replace(SMALL[model_class], forget_bias=bias)
        model = zoo.build(config, rngs=nnx.Rngs(0))
        lstm = model.lstms[0] if model_class is StackedLSTM else model.lstm
        biases.append(lstm.passes[0].b[...])
    width = biases[0].size // 4
    assert_close(biases[1] - biases[0], [0.0] * width + [2.0] * width + [0.0] * 2 * width)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("stacked-lstm", 35_417),
        ("lstm-classifier", 213_301),
        ("lstm-lm", 1_083_520),
        ("lstm-lm-medium", 19_775_200),
        ("lstm-lm-large", 66_022_000),
    ],
)
def test_documented_parameter_counts(name, parameters):
    """Zaremba et al. 2014 do not print theirs; 20 and 66 million are those usually cited."""
    model = nnx.eval_shape(lambda: zoo.create(name, rngs=nnx.Rngs(0)))
    assert count_parameters(model) == parameters


def test_configs_take_what_the_data_decide():
    config = SMALL[StackedLSTM].for_data((29, 12), 9)
    assert (config.in_channels, config.num_classes) == (12, 9)
    config = SMALL[LSTMClassifier].for_vocab(11, 4)
    assert (config.vocab_size, config.num_outputs) == (11, 4)
    assert SMALL[LSTMLanguageModel].for_vocab(11).vocab_size == 11
    with pytest.raises(ValueError, match=r"for examples of shape \(steps, channels\).* \(30,\)"):
        StackedLSTMConfig().for_data((30,), 2)


@pytest.mark.parametrize(("config", "changes", "message"), [
    (StackedLSTMConfig, {"hidden_dims": ()}, "hidden_dims=.. must name at least one LSTM"),
    (StackedLSTMConfig, {"hidden_dims": (4, 0)}, r"hidden_dims=\(4, 0\) must be at least 1"),
    (LSTMClassifierConfig, {"num_outputs": 0}, "num_outputs=0 must be at least 1"),
    (LSTMClassifierConfig, {"dropout_rate": 1.0}, r"dropout_rate=1.0 must lie in \[0, 1\)"),
    (LSTMLanguageModelConfig, {"dim": -1}, "dim=-1 must be at least 1"),
])  # fmt: skip
def test_a_wrong_value_is_named(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


@MODELS
def test_a_wrong_input_is_named(model_class):
    model, name = build(model_class), model_class.__name__
    with pytest.raises(ValueError, match=r"lengths has shape \(2,\), the batch is 3 sequences"):
        model(inputs(model_class), lengths=jnp.array([1, 2]))
    if model_class is StackedLSTM:
        with pytest.raises(ValueError, match=rf"{name} .*axis 2 \(channels\) is 3 instead of 2"):
            model(random(BATCH, STEPS, 3))
        with pytest.raises(TypeError, match=rf"{name} wants floating-point inputs"):
            model(jnp.zeros((BATCH, STEPS, 2), jnp.int32))
    else:
        with pytest.raises(TypeError, match=rf"{name} wants token numbers, integers; got float32"):
            model(random(BATCH, STEPS))
        with pytest.raises(ValueError, match=rf"{name} wants tokens \[batch, tokens\], 2 axes"):
            model(TOKENS[0])
