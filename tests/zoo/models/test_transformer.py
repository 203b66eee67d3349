"""The Transformer: masks, the cache, the scanned stack, its options; `parity` has its twins."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.zoo.compare import by_path, count_parameters, randomized
from zoo.functional.beam_search import beam_search
from zoo.models.transformer import Transformer, TransformerConfig

CONFIG = TransformerConfig(
    vocab_size=31, num_layers=2, num_heads=4, dim=16, hidden_dim=24, dropout_rate=0.0
)
NUMBERS = np.random.default_rng(0)
SOURCE = jnp.asarray(NUMBERS.integers(0, 31, (2, 8)))
TARGET = jnp.asarray(NUMBERS.integers(0, 31, (2, 6)))
LENGTHS = jnp.array([8, 5])


def build(**changes) -> Transformer:
    config = dataclasses.replace(CONFIG, **changes)
    return randomized(lambda: Transformer(config, rngs=nnx.Rngs(0)))


def scanned(model: Transformer, **changes) -> Transformer:
    """The same weights in a model that scans over its blocks."""
    config = dataclasses.replace(model.config, scan=True, **changes)
    other = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
    state = nnx.state(model)
    for side in ("encoder", "decoder"):
        blocks = [state[side]["blocks"][layer] for layer in range(config.num_layers)]
        state[side]["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    nnx.update(other, state)
    return other


@pytest.fixture(scope="module")
def model() -> Transformer:
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


def test_a_scan_is_the_loop(model):
    other = scanned(model, remat=True)
    assert_close(run(other, lengths=LENGTHS), run(model, lengths=LENGTHS))


@pytest.mark.parametrize(
    ("changes", "scan", "padded"),
    [
        ({}, False, True),
        ({"pointer": True}, True, False),
        ({"pre_norm": True, "share_tables": False, "pointer": True}, True, True),
    ],
)
def test_with_a_cache_the_answer_is_that_of_a_full_pass(changes, scan, padded):
    model = build(**changes)
    lengths = LENGTHS if padded else None
    expected = run(model, lengths=lengths)
    model = scanned(model) if scan else model
    caches = jax.jit(lambda model: model.empty_caches(model.encode(SOURCE, lengths), 7))(model)
    step = jax.jit(lambda model, tokens, caches: model.step(tokens, caches))
    logits = []
    for piece in (TARGET[:, :3], TARGET[:, 3:4], TARGET[:, 4:]):
        y, caches = step(model, piece, caches)
        logits.append(y)
    assert_close(jnp.concatenate(logits, 1), expected)


def test_one_table_or_three(model):
    tables = {p: v.shape for p, v in by_path(nnx.state(model)).items() if 31 in v.shape}
    assert tables == {"target.table": (31, 16)}
    own = build(share_tables=False, source_vocab_size=41)
    tables = {p: v.shape for p, v in by_path(nnx.state(own)).items() if {31, 41} & {*v.shape}}
    assert tables == {
        "target.table": (31, 16), "source.table": (41, 16), "output.kernel": (16, 31),
    }  # fmt: skip
    with pytest.raises(ValueError, match="set share_tables=False"):
        build(source_vocab_size=41)
    with pytest.raises(ValueError, match="set pointer=False"):
        build(source_vocab_size=41, share_tables=False, pointer=True)


def test_a_pointer_copies_what_stands_in_the_source():
    """With its gate wide open the model is the one without it; shut, it can only copy."""
    model, plain = build(pointer=True), build()
    weights = nnx.state(model)
    del weights["pointer"]
    nnx.update(plain, weights)
    with_gate = nnx.clone(model)
    for bias, logits in ((200.0, jax.nn.log_softmax(run(plain, lengths=LENGTHS))), (-200.0, None)):
        nnx.update(with_gate, {"pointer": {"gate": {"bias": jnp.array([bias])}}})
        log_p = run(with_gate, lengths=LENGTHS)
        assert_close(jnp.exp(log_p).sum(-1), np.ones((2, 6)))
        if logits is not None:
            assert_close(log_p, logits)
    for row, length in enumerate(LENGTHS.tolist()):  # padding is not copied
        can_be = np.isin(np.arange(31), SOURCE[row, :length])
        assert ((log_p[row] > -80) == can_be).all()


def test_a_pointer_searches_with_stacked_caches_as_without():
    model = build(pointer=True)

    @jax.jit
    def search(model):
        caches = model.empty_caches(model.encode(SOURCE, LENGTHS), 5)
        return beam_search(
            model.step, caches, jnp.array([1, 2]), beam_size=3, max_tokens=5, end_token=27,
            batch_axes=model.batch_axes,
        )  # fmt: skip

    (tokens, scores), (others, other_scores) = search(model), search(scanned(model))
    assert (tokens == others).all()
    assert_close(other_scores, scores)


def test_a_block_before_any_training_keeps_the_size_of_its_input():
    """In the paper's order by its norm, and embeddings by the factor √D, of size about 1."""
    model = Transformer(dataclasses.replace(CONFIG, dim=64), rngs=nnx.Rngs(0))
    memory = jax.jit(lambda model: model.encode(SOURCE))(model)
    assert_close(jnp.std(memory.vectors, -1), np.ones((2, 8)), kind="bf16")
    embedded = model._embed(model.target, SOURCE, jnp.arange(8)[None])
    assert 0.8 < jnp.std(embedded) < 1.6


def test_dropout_is_drawn_anew_with_each_key():
    model = build(dropout_rate=0.3)
    y = run(model, key=jax.random.key(0))
    assert not np.allclose(y, run(model, key=jax.random.key(1)))
    assert_close(run(nnx.view(model, deterministic=True)), run(build()))


def test_bfloat16_parameters_make_a_bfloat16_model(model):
    """In a scan, too, whose carry may not change its dtype."""
    narrow = scanned(model)
    state = jax.tree.map(lambda x: x.astype(jnp.bfloat16), nnx.state(narrow))
    y = run(nnx.merge(nnx.split(narrow)[0], state))
    assert y.dtype == jnp.bfloat16
    wide = run(model)
    assert jnp.linalg.norm(y - wide) < 0.05 * jnp.linalg.norm(wide)


def test_sizes():
    """63 and 214 million; the paper's table 3 says 65 and 213."""
    for name, size in {"transformer-base": 63_082_496, "transformer-big": 214_245_376}.items():
        model = nnx.eval_shape(lambda name=name: zoo.create(name, rngs=nnx.Rngs(0)))
        assert count_parameters(model) == size


@pytest.mark.parametrize(
    ("source", "target", "lengths", "error", "message"),
    [
        (SOURCE * 1.0, TARGET, None, TypeError, "wants token numbers"),
        (SOURCE, TARGET[0], None, ValueError, "2 axes; got 1"),
        (SOURCE, TARGET[:1], None, ValueError, "1 targets for 2 sources"),
        (SOURCE, TARGET, LENGTHS[:1], ValueError, r"shape \(1,\), 2 sources want \(2,\)"),
    ],
)
def test_wrong_inputs_are_named(model, source, target, lengths, error, message):
    with pytest.raises(error, match=message):
        model(source, target, source_lengths=lengths)


def test_wrong_settings_are_named():
    assert TransformerConfig.nano().for_vocab(99).vocab_size == 99
    with pytest.raises(ValueError, match="must divide"):
        TransformerConfig(dim=10, num_heads=4)
