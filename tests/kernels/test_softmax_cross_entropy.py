"""Cross-entropy over tiles of the vocabulary against the reference, and the memory it takes."""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.softmax_cross_entropy import linear_cross_entropy, pallas_gpu, pallas_tpu, xla
from kernels.softmax_cross_entropy.specs import SPECS, CrossEntropySpec
from tests.close import assert_close
from tests.kernels.gradients import assert_same, random
from tests.kernels.sharded import assert_differentiable_in_shards
from zoo.functional.cross_entropy import linear_cross_entropy as reference

PALLAS = {
    "pallas_gpu": partial(pallas_gpu.linear_cross_entropy, interpret=True),
    "pallas_tpu": partial(pallas_tpu.linear_cross_entropy, interpret=True),
}
BACKENDS = {"xla": xla.linear_cross_entropy, **PALLAS}
EACH = pytest.mark.parametrize("backend", BACKENDS)


def shrink(patch, tile):
    """Tiles and parts of a vocabulary so small that a small one has several."""
    for module in (xla, pallas_gpu, pallas_tpu):
        patch.setattr(module, "TILE", tile)
    patch.setattr(pallas_gpu, "ROWS", 16)
    patch.setattr(pallas_gpu, "COLUMNS", 16)
    patch.setattr(pallas_gpu, "DEPTH", 4)
    patch.setattr(pallas_gpu, "PART", 32)
    patch.setattr(pallas_tpu, "LANES", 16)
    patch.setattr(pallas_tpu, "BLOCK_BYTES", 2**10)


def arguments(spec, dtype="float32"):
    """x, kernel, bias."""
    kernel = random((spec.dim, spec.vocab), 1, dtype) * spec.dim**-0.5
    return random((spec.rows, spec.dim), 0, dtype), kernel, random((spec.vocab,), 2, dtype)


def targets(spec):
    """Any words, the first and the last of the vocabulary among them."""
    drawn = jax.random.randint(jax.random.key(3), (spec.rows,), 0, spec.vocab)
    return drawn.at[0].set(spec.vocab - 1).at[-1].set(0)


def assert_as_reference(
    backend, spec, kind: Literal["leaf", "bf16"] = "leaf", smoothing=0.0, biased=True
):
    x, kernel, bias = arguments(spec, "float32" if kind == "leaf" else "bfloat16")

    def losses(function):
        def run(x, kernel, *bias):
            return function(x, kernel, targets(spec), *bias, label_smoothing=smoothing)

        return run

    given = (x, kernel, bias) if biased else (x, kernel)
    kernel_and_reference = losses(BACKENDS[backend]), losses(reference)
    assert_same(*kernel_and_reference, *given, kind=kind, forward_mode=False)


@EACH
@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(backend, name, monkeypatch):
    """Each real vocabulary in proportion to the tile, for few rows of few features."""
    shrink(monkeypatch, tile=64)
    vocab = max(round(SPECS[name].vocab / 256), 2)
    assert_as_reference(backend, dataclasses.replace(SPECS[name], rows=3, dim=8, vocab=vocab))


@EACH
@settings(max_examples=5, deadline=None)
@given(
    rows=st.integers(1, 20),
    dim=st.integers(1, 9),
    vocab=st.integers(2, 40),
    tile=st.integers(1, 16),
    smoothing=st.sampled_from([0.0, 0.1]),
    biased=st.booleans(),
    kind=st.sampled_from(["leaf", "bf16"]),
)
def test_drawn_shapes(backend, rows, dim, vocab, tile, smoothing, biased, kind):
    spec = CrossEntropySpec(rows=rows, dim=dim, vocab=vocab)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, tile)
        assert_as_reference(backend, spec, kind, smoothing, biased)


def test_one_tile_keeps_its_logits():
    """At the size of a character vocabulary it is the reference itself."""
    x, kernel, bias = arguments(SPECS["bible-gpt"])
    trace = jax.make_jaxpr(linear_cross_entropy)(x, kernel, targets(SPECS["bible-gpt"]), bias)
    assert "custom_vjp" not in str(trace)


@EACH
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_words_that_a_bias_hides(backend, smoothing, monkeypatch):
    """All of the first tiles and parts, some in the middle, and the target of the last row."""
    shrink(monkeypatch, tile=16)
    x, kernel, bias = arguments(CrossEntropySpec(rows=4, dim=8, vocab=70))
    hidden = bias.at[:33].set(-jnp.inf).at[38:60].set(-jnp.inf)

    def losses(function):
        wanted = jnp.array([33, 37, 69, 50])
        return lambda *args: function(*args[:2], wanted, args[2], label_smoothing=smoothing)

    same = losses(BACKENDS[backend]), losses(reference)
    assert_same(*same, x, kernel, hidden, forward_mode=False)


@EACH
def test_targets_that_are_no_words(backend, monkeypatch):
    """NaN, as in the reference, for which a target below 0 counts from the end."""
    shrink(monkeypatch, tile=16)
    x, kernel, _ = arguments(CrossEntropySpec(rows=5, dim=4, vocab=40))
    wanted = jnp.array([40, 3, -1, -40, -41])
    actual, expected = (jax.jit(f)(x, kernel, wanted) for f in (BACKENDS[backend], reference))
    assert jnp.array_equal(jnp.isnan(actual), jnp.array([True, False, False, False, True]))
    assert_close(actual[1:4], expected[1:4])


@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_mixed_types(dtypes, monkeypatch):
    """Of x and of the kernel; the gradient of each has its own."""
    shrink(monkeypatch, tile=16)
    x, kernel, bias = arguments(CrossEntropySpec(rows=3, dim=4, vocab=40))
    wanted = jnp.array([0, 20, 39])
    given = x.astype(dtypes[0]), kernel.astype(dtypes[1]), bias

    def losses(function):
        return lambda x, kernel, bias: function(x, kernel, wanted, bias)

    same = losses(xla.linear_cross_entropy), losses(reference)
    assert_same(*same, *given, kind="bf16", forward_mode=False)


@pytest.mark.parametrize("backend", PALLAS)
def test_as_compiled(backend):
    """With the tiles, parts and blocks that are compiled for hardware; none is full at the end."""
    assert_as_reference(backend, CrossEntropySpec(rows=70, dim=40, vocab=8300), smoothing=0.1)


def penalty(losses, spec):
    """The gradient of a gradient's square."""
    x, kernel, _ = arguments(spec)
    inner = jax.grad(lambda x: jnp.sum(jnp.sin(losses(x, kernel, targets(spec)))))
    return jax.jit(jax.grad(lambda x: jnp.sum(inner(x) ** 2)))(x)


def test_second_derivatives(monkeypatch):
    shrink(monkeypatch, tile=16)
    spec = CrossEntropySpec(rows=3, dim=4, vocab=40)
    assert_close(penalty(xla.linear_cross_entropy, spec), penalty(reference, spec))


@pytest.mark.parametrize("backend", PALLAS)
def test_no_second_derivatives_in_pallas(backend):
    spec = CrossEntropySpec(rows=3, dim=4, vocab=40)
    with pytest.raises(NotImplementedError, match=r"has no derivative; use .* zoo\.functional"):
        penalty(BACKENDS[backend], spec)


@EACH
def test_inside_shard_map(backend, monkeypatch):
    shrink(monkeypatch, tile=16)
    x, kernel, bias = arguments(CrossEntropySpec(rows=4, dim=4, vocab=40))
    compiled = {"pallas_gpu": pallas_gpu, "pallas_tpu": pallas_tpu, "xla": xla}[backend]

    def losses(x, wanted, kernel, bias):
        return compiled.linear_cross_entropy(x, kernel, wanted, bias)

    rows, parameters = (x, jnp.array([0, 39, 20, 3])), (kernel, bias)
    assert_differentiable_in_shards(losses, rows, parameters, runs=backend == "xla")


@EACH
def test_logits_beyond_the_range_of_exp(backend, monkeypatch):
    shrink(monkeypatch, tile=3)
    kernel = jnp.array([[-400.0, 0, 300, 200, 400, -200, 100]])
    x, wanted = jnp.ones((2, 1)), jnp.array([4, 1])
    losses, backward = jax.vjp(lambda x: BACKENDS[backend](x, kernel, wanted), x)
    assert_close(losses, jnp.array([0.0, 400.0]))
    assert_close(backward(jnp.ones(2))[0], jnp.array([[0.0], [400.0]]))


def test_more_axes_than_one():
    spec = CrossEntropySpec(rows=6, dim=4, vocab=5000)
    x, kernel, _ = arguments(spec)
    flat = linear_cross_entropy(x, kernel, targets(spec))
    shaped = linear_cross_entropy(x.reshape(2, 3, 4), kernel, targets(spec).reshape(2, 3))
    assert_close(shaped, flat.reshape(2, 3))


def test_a_quarter_of_the_memory_of_optax():
    """Forward and backward at V = 32,000; nothing runs."""
    spec = SPECS["vocab-32k"]
    shapes = jax.eval_shape(lambda: (*arguments(spec)[:2], targets(spec)))

    def through_optax(x, kernel, targets):
        return optax.softmax_cross_entropy_with_integer_labels(x @ kernel, targets)

    def temporaries(losses):
        gradient = jax.jit(jax.grad(partial(_mean, losses), (0, 1)))
        memory = gradient.lower(*shapes).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporaries(linear_cross_entropy) < temporaries(through_optax) / 4


@pytest.mark.parametrize("backend", [pallas_gpu, pallas_tpu])
def test_what_cannot_be_served(backend):
    zeros = jnp.zeros((2, 4), "float16"), jnp.zeros((4, 8), "float16"), jnp.zeros(2, int)
    with pytest.raises(NotImplementedError, match="x is float16 and the kernel float16"):
        backend.linear_cross_entropy(*zeros)
    huge = [jax.ShapeDtypeStruct((2**17, 2**17), "float32")] * 2
    with pytest.raises(NotImplementedError, match=r"17179869184 elements|take 67108864 bytes"):
        jax.eval_shape(backend.linear_cross_entropy, *huge, jnp.zeros(2**17, int))


def _mean(losses, *args):
    return losses(*args).mean()
