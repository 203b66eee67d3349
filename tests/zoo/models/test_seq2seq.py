"""The LSTM encoder-decoder: padding, its cache, search, its options; `parity` has its twin."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
import zoo
from tests.close import assert_close
from tests.zoo.compare import by_path, randomized, run_on_tokens
from zoo.functional.beam_search import beam_search
from zoo.functional.generate import generate
from zoo.functional.ops import Ops
from zoo.models.seq2seq import LSTMSeq2Seq, LSTMSeq2SeqConfig

CONFIG = LSTMSeq2SeqConfig(vocab_size=31, share_tables=True, num_layers=2, dim=16, dropout_rate=0.0)
NUMBERS = np.random.default_rng(0)
SOURCE = jnp.asarray(NUMBERS.integers(0, 31, (2, 8)))
TARGET = jnp.asarray(NUMBERS.integers(0, 31, (2, 6)))
LENGTHS = jnp.array([8, 5])
NUM_TOKENS, END = 7, 27  # an end that the random model comes to, but not at once


def build(ops: Ops = Ops(), **changes) -> LSTMSeq2Seq:
    config = dataclasses.replace(CONFIG, **changes)
    return randomized(lambda: LSTMSeq2Seq(config, rngs=nnx.Rngs(0), ops=ops))


@pytest.fixture(scope="module")
def model() -> LSTMSeq2Seq:
    return build()


@jax.jit
def run(model, source=SOURCE, target=TARGET, lengths=None, key=None):
    rngs = None if key is None else nnx.Rngs(dropout=key)
    return model(source, target, source_lengths=lengths, rngs=rngs)


def test_the_decoder_sees_all_of_the_source_and_only_the_past_of_the_target(model):
    before = run(model)
    assert not np.allclose(run(model, SOURCE.at[:, 7].set(3))[:, 0], before[:, 0])
    later = run(model, target=TARGET.at[:, 4:].set(0))
    assert_close(later[:, :4], before[:, :4])
    assert not np.allclose(later[:, 4:], before[:, 4:])


def test_padding_never_changes_an_answer(model):
    padded = run(model, lengths=LENGTHS)
    assert_close(run(model, SOURCE.at[1, 5:].set(7), lengths=LENGTHS), padded)
    assert_close(run(model, SOURCE[1:, :5], TARGET[1:]), padded[1:])
    assert_close(run(model, lengths=jnp.array([8, 8])), run(model))


def test_graph_mode_tree_mode_and_kernels_agree():
    results = []
    for graph, ops in ((True, Ops()), (False, Ops()), (True, kernels.best())):
        with nnx.set_graph_mode(graph):
            results.append(run_on_tokens(build(ops), SOURCE, TARGET))
    assert_close(results[1], results[0])
    assert_close(results[2], results[0], kind="composite")
    for name, gradient in results[0][1].items():
        assert jnp.any(gradient != 0), name


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("changes", [{}, {"share_tables": False, "num_layers": 1}])
def test_step_by_step_the_answer_is_that_of_a_whole_pass(changes, padded):
    model, lengths = build(**changes), LENGTHS if padded else None
    caches = jax.jit(lambda model: model.empty_caches(model.encode(SOURCE, lengths), 6))(model)
    step = jax.jit(lambda model, tokens, caches: model.step(tokens, caches))
    logits = []
    for piece in (TARGET[:, :3], TARGET[:, 3:4], TARGET[:, 4:]):
        y, caches = step(model, piece, caches)
        logits.append(y)
    assert_close(jnp.concatenate(logits, 1), run(model, lengths=lengths))


def greedy(model, first) -> np.ndarray:
    """The likeliest next token again and again, each time by a whole pass; END after the end."""
    tokens = jnp.zeros((2, NUM_TOKENS + 1), int).at[:, 0].set(first)  # what is to come is not seen
    for t in range(NUM_TOKENS):
        logits = run(model, target=tokens[:, :-1], lengths=LENGTHS)
        tokens = tokens.at[:, t + 1].set(jnp.argmax(logits[:, t], -1))
    return end_at_the_end(tokens[:, 1:])


def end_at_the_end(tokens) -> np.ndarray:
    tokens = np.asarray(tokens)
    return np.where(np.cumsum(tokens == END, 1) > 0, END, tokens)


@jax.jit(static_argnames="beam_size")
def search(model, first, beam_size):
    caches = model.empty_caches(model.encode(SOURCE, LENGTHS), NUM_TOKENS)
    return beam_search(
        model.step, caches, first, beam_size=beam_size, max_tokens=NUM_TOKENS, end_token=END,
        alpha=0.0, batch_axes=model.batch_axes,
    )  # fmt: skip


def test_one_beam_is_greedy(model):
    first = jnp.array([1, 2])
    expected = greedy(model, first)
    assert (np.asarray(search(model, first, 1)[0][:, 0]) == expected).all()

    @jax.jit
    def write(model, first):
        caches = model.empty_caches(model.encode(SOURCE, LENGTHS), NUM_TOKENS + 1)
        return generate(
            model.step, caches, first[:, None], jnp.ones(2, int), NUM_TOKENS,
            lambda logits, key: jnp.argmax(logits, -1), jax.random.key(0),
        )  # fmt: skip

    assert (end_at_the_end(write(model, first)) == expected).all()


def test_a_beam_has_the_score_that_the_model_gives_it(model):
    """Hypotheses change rows from step to step, and their states go with them."""
    first = jnp.array([1, 2])
    tokens, scores = search(model, first, 4)
    assert (scores[:, 0] >= search(model, first, 1)[1][:, 0] - 1e-5).all()
    for beam in range(4):
        best = jnp.concatenate([first[:, None], tokens[:, beam]], 1)
        log_probs = jax.nn.log_softmax(run(model, target=best[:, :-1], lengths=LENGTHS))
        chosen = np.asarray(jnp.take_along_axis(log_probs, best[:, 1:, None], 2)[..., 0])
        ends = np.asarray(tokens[:, beam]) == END
        real = np.cumsum(ends, 1) - ends == 0
        assert_close(scores[:, beam], (chosen * real).sum(1), kind="composite")


def test_one_table_or_three(model):
    tables = {p: v.shape for p, v in by_path(nnx.state(model)).items() if 31 in v.shape}
    assert tables == {"target.table": (31, 16)}
    own = build(share_tables=False, source_vocab_size=41)
    tables = {p: v.shape for p, v in by_path(nnx.state(own)).items() if {31, 41} & {*v.shape}}
    assert tables == {
        "target.table": (31, 16), "source.table": (41, 16), "output.kernel": (16, 31),
    }  # fmt: skip


def test_dropout_is_drawn_anew_with_each_key():
    model = build(dropout_rate=0.3)
    y = run(model, key=jax.random.key(0))
    assert not np.allclose(y, run(model, key=jax.random.key(1)))
    assert_close(run(nnx.view(model, deterministic=True)), run(build()))
    with pytest.raises(ValueError, match=r"dropout at rate 0\.3 needs random numbers"):
        run(model)


def test_bfloat16_parameters_make_a_bfloat16_model(model):
    """In which only the state of the decoder, a sum over the steps, is float32."""
    graphdef, state = nnx.split(model)
    narrow = nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state))
    y, wide = run(narrow), run(model)
    assert y.dtype == jnp.bfloat16
    assert jnp.linalg.norm(y - wide) < 0.05 * jnp.linalg.norm(wide)
    caches = jax.jit(lambda model: model.empty_caches(model.encode(SOURCE), 6))(narrow)
    assert (caches.memory.vectors.dtype, caches.state.c.dtype) == (jnp.bfloat16, jnp.float32)


def lstm_size(in_dim, dim):
    return (in_dim + dim + 1) * 4 * dim


def size(table, dim, num_layers):
    """Of tables, encoder, decoder, W_s, W_a and W_c."""
    layer = 2 * lstm_size(dim, dim // 2) + lstm_size(dim, dim) + dim // 2 * dim
    return table * dim + num_layers * layer + 3 * dim * dim


# Every field, another value, and the number of parameters that the model then has.
CHANGES = [
    ("vocab_size", 33, size(33, 16, 2)),
    ("source_vocab_size", 31, size(31, 16, 2)),
    ("share_tables", False, size(3 * 31, 16, 2)),
    ("num_layers", 3, size(31, 16, 3)),
    ("dim", 18, size(31, 18, 2)),
    ("dropout_rate", 0.5, size(31, 16, 2)),
    ("forget_bias", 0.0, size(31, 16, 2)),
]


def count(model) -> int:
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_the_table_of_changes_names_every_field():
    assert [name for name, _, _ in CHANGES] == [f.name for f in dataclasses.fields(CONFIG)]


@pytest.mark.parametrize(("field", "value", "parameters"), CHANGES)
def test_every_field_changes_the_model(field, value, parameters):
    config = dataclasses.replace(CONFIG, **{field: value})
    assert config != CONFIG
    assert count(nnx.eval_shape(lambda: LSTMSeq2Seq(config, rngs=nnx.Rngs(0)))) == parameters


def test_forget_bias_raises_the_forget_gates_of_both_sides():
    low, high = (
        LSTMSeq2Seq(dataclasses.replace(CONFIG, forget_bias=bias), rngs=nnx.Rngs(0))
        for bias in (0.0, 2.0)
    )
    for side, dim in (("encoder", 8), ("decoder", 16)):
        for one, other in zip(getattr(low, side).passes, getattr(high, side).passes, strict=True):
            raised = np.repeat([0.0, 2.0, 0.0, 0.0], dim)  # gates i, f, g, o
            assert_close(other.b - one.b, raised)


def test_sizes():
    """Luong et al. do not print theirs."""
    for name, parameters in {"seq2seq-nano": 2_718_720, "seq2seq-luong": 211_032_000}.items():
        assert count(nnx.eval_shape(lambda n=name: zoo.create(n, rngs=nnx.Rngs(0)))) == parameters


@pytest.mark.parametrize(
    ("source", "target", "lengths", "error", "message"),
    [
        (SOURCE * 1.0, TARGET, None, TypeError, "LSTMSeq2Seq wants token numbers"),
        (SOURCE[0], TARGET, None, ValueError, "2 axes; got 1"),
        (SOURCE, TARGET[0], None, ValueError, "2 axes; got 1"),
        (SOURCE, TARGET[:1], None, ValueError, "1 targets for 2 sources"),
        (SOURCE, TARGET, LENGTHS[:1], ValueError, r"shape \(1,\), 2 sources want \(2,\)"),
    ],
)
def test_wrong_inputs_are_named(model, source, target, lengths, error, message):
    with pytest.raises(error, match=message):
        model(source, target, source_lengths=lengths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 15}, "must be even"),
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"source_vocab_size": -1}, "source_vocab_size=-1 must be at least 1"),
        ({"source_vocab_size": 41}, "set share_tables=False"),
        ({"dropout_rate": 1.0}, r"dropout_rate=1.0 must lie in \[0, 1\)"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_a_config_takes_the_vocabulary_of_the_data():
    config = LSTMSeq2SeqConfig(source_vocab_size=40).for_vocab(99)
    assert (config.vocab_size, config.source_vocab_size) == (99, None)
