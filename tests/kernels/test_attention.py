"""Every back end of attention against the reference, those in Pallas interpreted on the CPU."""

import dataclasses
import math
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

import kernels
from kernels.attention import flash, pallas_gpu, pallas_tpu, xla
from kernels.attention.flash import Blocks
from kernels.attention.specs import SPECS, AttentionSpec
from tests.close import assert_close
from tests.kernels.gradients import assert_same, random
from zoo.functional.attention import Mask
from zoo.functional.attention import attention as reference

Backend = Any  # has `attention`


def in_small_blocks(q, k, v, mask=None, interpret=False):
    """The CPU's own form, which sequences as short as these would not have."""
    del interpret
    return xla.in_blocks(q, k, v, mask, block=48)


def in_small_loops(q, k, v, mask=None, interpret=False):
    """And that of long ones."""
    del interpret
    return xla.in_loops(q, k, v, mask, largest=Blocks(queries=32, keys=64))


PALLAS = {"pallas_gpu": pallas_gpu, "pallas_tpu": pallas_tpu}
IN_LOOPS = SimpleNamespace(attention=in_small_loops)
ONCE = PALLAS | {"xla_in_loops": IN_LOOPS}  # differentiable
BACKENDS = ONCE | {"xla": SimpleNamespace(attention=in_small_blocks)}


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch) -> Backend:
    """A back end, with blocks small enough for short sequences to have several."""
    monkeypatch.setattr(pallas_tpu, "LARGEST", 128)
    return BACKENDS[request.param]


@pytest.fixture(params=PALLAS)
def in_pallas(request) -> Backend:
    """A back end that refuses what it does not serve."""
    return PALLAS[request.param]


@pytest.fixture(params=ONCE)
def once_differentiable(request) -> Backend:
    """A back end that refuses second derivatives."""
    return ONCE[request.param]


def arguments(spec: AttentionSpec, dtype: str = "float32"):
    """q, k, v."""
    queries = (spec.batch, spec.tokens, spec.heads, spec.width)
    keys = (spec.batch, spec.num_keys or spec.tokens, spec.kv_heads, spec.width)
    return tuple(random(shape, i, dtype) for i, shape in enumerate((queries, keys, keys)))


def rules(spec: AttentionSpec) -> Mask:
    """Rows that get shorter and shorter; a document more for every tenth token."""
    num_keys = spec.num_keys or spec.tokens

    def numbers(size: int) -> jax.Array:
        return jnp.broadcast_to(jnp.arange(size) // 10, (spec.batch, size))

    return Mask(
        causal=spec.causal,
        lengths=num_keys // (1 + jnp.arange(spec.batch)) if spec.lengths else None,
        segments=(numbers(spec.tokens), numbers(num_keys)) if spec.segments else None,
    )


def shrunk(name: str) -> AttentionSpec:
    """Fewer sequences, tokens and heads: the code path stays the same."""
    spec = SPECS[name]
    kv_heads, group = min(spec.kv_heads, 2), min(spec.heads // spec.kv_heads, 3)
    return dataclasses.replace(
        spec,
        batch=2,
        tokens=min(spec.tokens, 150),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        num_keys=spec.num_keys and min(spec.num_keys, 170),
    )


def assert_as_reference(
    backend: Backend,
    q_k_v: tuple[jax.Array, ...],
    mask: Mask | None,
    kind: Literal["leaf", "bf16"] = "leaf",
):
    kernel = partial(backend.attention, mask=mask, interpret=True)
    assert_same(kernel, partial(reference, mask=mask), *q_k_v, kind=kind, forward_mode=False)


@pytest.mark.parametrize("name", SPECS)
def test_named_shapes(backend, name):
    spec = shrunk(name)
    assert_as_reference(backend, arguments(spec), rules(spec))


def test_bfloat16(backend):
    spec = shrunk("llama-8b")
    assert_as_reference(backend, arguments(spec, "bfloat16"), rules(spec), kind="bf16")


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # every example wants the same
)
@given(
    tokens=st.sampled_from([1, 2, 17, 128, 131]),
    num_keys=st.sampled_from([1, 16, 33, 129, 200]),
    kv_heads=st.integers(1, 2),
    group=st.integers(1, 3),
    width=st.sampled_from([1, 8, 24, 64, 128]),
    causal=st.booleans(),
    lengths=st.none() | st.tuples(*[st.integers(0, 200)] * 2),
    num_segments=st.none() | st.integers(1, 4),
    kind=st.sampled_from(["leaf", "bf16"]),
)
@example(131, 200, 2, 3, 24, True, (150, 0), None, "leaf").via("causal, more keys than queries")
@example(200, 131, 1, 2, 8, True, None, 2, "leaf").via("causal, more queries than keys")
@example(1, 1, 1, 1, 1, False, None, None, "leaf").via("length 1")
@example(131, 200, 1, 2, 64, False, (150, 0), None, "bf16").via("a row without keys, bfloat16")
@example(128, 129, 1, 1, 128, True, None, 3, "bf16").via("segments, bfloat16")
def test_drawn_shapes(
    backend, tokens, num_keys, kv_heads, group, width, causal, lengths, num_segments, kind
):
    """Lengths beyond the keys, rows without any, and segments in any order."""
    spec = AttentionSpec(
        batch=2,
        tokens=tokens,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        width=width,
        num_keys=num_keys,
    )
    q_k_v = arguments(spec, "float32" if kind == "leaf" else "bfloat16")
    mask = Mask(
        causal=causal,
        lengths=None if lengths is None else jnp.array(lengths),
        segments=num_segments and (mixed(tokens, num_segments), mixed(num_keys, num_segments)),
    )

    weighting = random(q_k_v[0].shape, 10)

    @partial(jax.jit, static_argnums=0)
    def found(attention, q_k_v):
        y, pull_back = jax.vjp(partial(attention, mask=mask), *q_k_v)
        return y, *pull_back(weighting.astype(y.dtype))

    ours = found(partial(backend.attention, interpret=True), q_k_v)
    theirs = found(reference, q_k_v)
    # Where no query sees two keys the gradients of q and k are 0, a difference of equal numbers,
    # which has no scale, and in bfloat16 nearly so where few do: v's gives them one.
    visible = mask.array(tokens, num_keys)
    beside = kind == "bf16" or not jnp.any(jnp.sum(visible, -1) > 1)
    for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one.dtype == other.dtype
        if beside and i in (1, 2):
            one, other = (
                jnp.concatenate([jnp.ravel(x), jnp.ravel(d_v)])
                for x, d_v in ((one, ours[3]), (other, theirs[3]))
            )
        assert_close(one, other, kind=kind)


def mixed(size: int, num_segments: int) -> jax.Array:
    """Two rows of segments, not in order, some of them negative."""
    row = jnp.arange(size) * 7 % num_segments - 1
    return jnp.stack([row, row[::-1]])


def test_a_query_that_may_look_nowhere(backend):
    """It gets 0 and gives none; in the row without keys nothing does."""
    spec = AttentionSpec(batch=2, tokens=5, heads=2, kv_heads=1, width=8)
    numbers = jnp.array([[0, 0, 1, 1, 2]] * 2), jnp.array([[0, 0, 1, 1, 1]] * 2)
    mask = Mask(causal=True, lengths=jnp.array([5, 0]), segments=numbers)
    attention = partial(backend.attention, mask=mask, interpret=True)
    output, pull_back = jax.vjp(attention, *arguments(spec))
    d_q, d_k, d_v = pull_back(jnp.ones_like(output))
    for x in (output, d_q, d_k, d_v):
        assert jnp.all(jnp.isfinite(x))
        assert not jnp.any(x[1])
    assert not jnp.any(output[0, 4])
    assert not jnp.any(d_q[0, 4])
    assert jnp.all(output[0, :4] != 0)


def test_large_scores(backend):
    """Of which the exponential overflows, unless the largest is subtracted from all."""
    q, k, v = arguments(AttentionSpec(batch=1, tokens=140, heads=1, kv_heads=1, width=16))
    actual = backend.attention(10 * q, 10 * k, v, interpret=True)
    assert_close(actual, reference(10 * q, 10 * k, v), kind="composite")  # scores of hundreds


def test_no_array_over_queries_and_keys(backend):
    """Neither of all tokens nor of all padded ones, forward and backward."""
    spec = AttentionSpec(batch=1, tokens=1009, heads=2, kv_heads=1, width=16)

    def gradients(attention):
        return jax.grad(lambda *q_k_v: jnp.sum(attention(*q_k_v)), argnums=(0, 1, 2))

    def square(attention):
        jaxpr = jax.make_jaxpr(gradients(attention))(*arguments(spec)).jaxpr
        return [shape for shape in shapes(jaxpr) if sum(size >= 1009 for size in shape) > 1]

    mask = Mask(causal=True)
    assert square(partial(reference, mask=mask))
    assert not square(partial(backend.attention, mask=mask))


def shapes(jaxpr):
    """Of every array that a traced function computes."""
    for eqn in equations(jaxpr):
        yield from (out.aval.shape for out in eqn.outvars if hasattr(out.aval, "shape"))


def equations(jaxpr):
    """Of a traced function, in kernels and loops too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(inner):
                yield from equations(getattr(inner, "jaxpr", inner))


def is_jaxpr(value) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def test_keys_of_a_group_are_not_repeated(backend):
    """No array is as large as keys for each query head, where there are far more keys."""
    spec = AttentionSpec(batch=1, tokens=128, heads=6, kv_heads=2, width=128, num_keys=1024)
    q, k, v = arguments(spec)

    def gradient(k):
        return jax.grad(lambda k: jnp.sum(backend.attention(q, k, v)))(k)

    largest = max(math.prod(shape) for shape in shapes(jax.make_jaxpr(gradient)(k).jaxpr))
    assert largest == k.size


def test_traces_inside_shard_map(backend):
    """With `check_vma`, the default, under which a kernel's results must say how they vary."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    q, k, v = arguments(AttentionSpec(batch=2, tokens=20, heads=2, kv_heads=1, width=8))

    def gradient(q, k, v):
        return jax.grad(lambda q: jnp.sum(backend.attention(q, k, v)))(q)

    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    assert jax.eval_shape(sharded, q, k, v).shape == q.shape


def test_under_vmap(backend):
    q, k, v = arguments(AttentionSpec(batch=2, tokens=20, heads=2, kv_heads=1, width=8))
    lengths = jnp.array([[3, 20], [0, 7]])

    def over_two(attention):
        return jax.vmap(lambda q, lengths: attention(q, k, v, Mask(lengths=lengths)))(
            jnp.stack([q, 2 * q]), lengths
        )

    assert_close(over_two(partial(backend.attention, interpret=True)), over_two(reference))


def test_mixed_types(backend):
    """As in the reference, the result has the type of the values."""
    q, k, v = arguments(AttentionSpec(batch=1, tokens=3, heads=1, kv_heads=1, width=4))
    actual = backend.attention(q, k, v.astype(jnp.bfloat16), interpret=True)
    assert actual.dtype == jnp.bfloat16
    assert_close(actual, reference(q, k, v.astype(jnp.bfloat16)), kind="bf16")


def test_refusals(in_pallas):
    spec = AttentionSpec(batch=1, tokens=4, heads=3, kv_heads=1, width=8)
    q, k, v = arguments(spec)
    square = jnp.ones((1, 1, 4, 4))
    instead = "use zoo.functional.attention or jax.nn"
    with pytest.raises(NotImplementedError, match=rf"bias, \(1, 1, 4, 4\).*{instead}"):
        in_pallas.attention(q, k, v, bias=square)
    with pytest.raises(NotImplementedError, match=rf"mask of shape \(1, 1, 4, 4\).*{instead}"):
        in_pallas.attention(q, k, v, square > 0)
    with pytest.raises(NotImplementedError, match=f"float16 is neither.*{instead}"):
        in_pallas.attention(*(x.astype(jnp.float16) for x in (q, k, v)))
    wide = dataclasses.replace(spec, width=flash.LARGEST_WIDTH + 1)
    with pytest.raises(NotImplementedError, match=f"257 wide.*{instead}"):
        in_pallas.attention(*arguments(wide))


def test_heads_that_do_not_divide(backend):
    q, k, v = arguments(AttentionSpec(batch=1, tokens=4, heads=3, kv_heads=2, width=8))
    with pytest.raises(ValueError, match="2 key/value heads do not divide 3 query heads"):
        backend.attention(q, k, v)


def test_further_derivatives_are_refused(once_differentiable):
    q, k, v = arguments(AttentionSpec(batch=1, tokens=4, heads=1, kv_heads=1, width=8))

    def total(q):
        return jnp.sum(once_differentiable.attention(q, k, v, interpret=True))

    with pytest.raises(NotImplementedError, match="has no derivative; use zoo"):
        jax.grad(lambda q: jnp.sum(jax.grad(total)(q)))(q)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(total, (q,), (q,))


LONG = AttentionSpec(batch=2, tokens=300, heads=6, kv_heads=3, width=8, lengths=True, segments=True)


@pytest.mark.parametrize("heads_at_a_time", [1, 3])
def test_on_a_cpu(monkeypatch, heads_at_a_time):
    """What models call, with its own blocks, and all that its loop may take at a time."""
    monkeypatch.setattr(xla, "SCORES", heads_at_a_time * 2 * xla.BLOCK * 300)
    attention = partial(xla.attention, mask=rules(LONG))
    assert parts(attention) == 3 // heads_at_a_time
    want = partial(reference, mask=rules(LONG))
    assert_same(attention, want, *arguments(LONG), forward_mode=False)


@pytest.mark.parametrize(("tokens", "products"), [(255, 6), (256, 7)])
def test_fewer_queries_than_a_block_has_keep_their_weights(tokens, products):
    """On a CPU: the backward pass has no product of queries and keys again."""
    spec = dataclasses.replace(LONG, tokens=tokens, num_keys=300)
    attention = partial(xla.attention, mask=rules(spec))
    gradients = jax.grad(lambda *q_k_v: jnp.sum(attention(*q_k_v) ** 2), argnums=(0, 1, 2))
    jaxpr = jax.make_jaxpr(gradients)(*arguments(spec)).jaxpr
    names = [eqn.primitive.name for eqn in equations(jaxpr)]
    assert names.count("dot_general") == products
    assert_same(
        attention, partial(reference, mask=rules(spec)), *arguments(spec), forward_mode=False
    )


def parts(attention) -> int:
    """Steps of the loop for each row."""
    jaxpr = jax.make_jaxpr(attention)(*arguments(LONG)).jaxpr
    (length,) = {eqn.params["length"] for eqn in equations(jaxpr) if eqn.primitive.name == "scan"}
    return length // LONG.batch


def test_what_a_cpu_leaves_to_the_reference():
    """To the bit: few queries, whatever the keys, a bias, a mask that is an array, other types."""
    few = arguments(dataclasses.replace(LONG, tokens=128, num_keys=300))
    long, square = arguments(LONG), random((1, 1, 300, 300), 7)
    half = tuple(x.astype(jnp.float16) for x in long)
    cases = [(few, Mask(causal=True), None), (long, None, square), (long, square > 0, None)]
    for (q, k, v), mask, bias in [*cases, (half, None, None)]:
        want = reference(q, k, v, mask, bias)
        assert jnp.array_equal(xla.attention(q, k, v, mask, bias), want)


@pytest.mark.parametrize(
    ("tokens", "num_keys", "group", "loops"),
    [(1024, 1024, 4, False), (1025, 512, 1, True), (1024, 1025, 4, True), (1024, 1024, 8, True)],
)
def test_what_a_cpu_does_in_loops(tokens, num_keys, group, loops):
    """Many queries, many keys, many heads of one key/value head."""
    spec = AttentionSpec(
        batch=1, tokens=tokens, heads=group, kv_heads=1, width=8, num_keys=num_keys
    )
    jaxpr = jax.make_jaxpr(xla.attention)(*arguments(spec)).jaxpr
    assert any(eqn.primitive.name == "while" for eqn in equations(jaxpr)) == loops


def test_on_a_cpu_in_loops(monkeypatch):
    """What models call, with its own blocks, of which there are two by three here."""
    monkeypatch.setattr(xla, "MOST_SCORES", 0)
    spec = dataclasses.replace(LONG, tokens=601, num_keys=1030, heads=2, kv_heads=1)
    mask = dataclasses.replace(rules(spec), causal=True)
    attention, want = partial(xla.attention, mask=mask), partial(reference, mask=mask)
    assert_same(attention, want, *arguments(spec), forward_mode=False)


def temporary_bytes(tokens: int, heads: int, kv_heads: int, width: int) -> int:
    """Of one causal row forward and backward, as it is compiled for this machine."""
    q, k = (jax.ShapeDtypeStruct((1, tokens, n, width), jnp.float32) for n in (heads, kv_heads))

    def loss(q, k, v):
        return jnp.sum(xla.attention(q, k, v, Mask(causal=True)) ** 2)

    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, k)
    compiled = lowered.compile(compiler_options=kernels.compiler_options())
    memory = compiled.memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


def test_memory_on_a_cpu():
    """Forward and backward take less than half of what one array of all weights would.

    XLA lets several blocks of a head be in memory, and no two steps of the loop: more heads or rows
    need no more.
    """
    assert temporary_bytes(1024, heads=12, kv_heads=12, width=64) < 12 * 1024 * 1024 * 4 / 2


def test_memory_on_a_cpu_grows_with_the_tokens():
    """And not with their square, though eight heads share a key: 268 MB at 8,192 for each."""
    shorter, longer = (temporary_bytes(n, heads=8, kv_heads=1, width=16) for n in (4096, 8192))
    assert longer < 2.5 * shorter
    assert temporary_bytes(32_768, heads=2, kv_heads=1, width=16) < 40 * 2**20  # of 4,295 MB


@pytest.mark.parametrize("tokens", [20, 60])
def test_second_derivatives_on_a_cpu(tokens):
    """Through the loop of the backward pass, where the forward one kept the weights or not."""
    spec = AttentionSpec(batch=1, tokens=tokens, heads=2, kv_heads=1, width=8)

    def of_gradient(attention):
        def loss(*q_k_v):
            return jnp.sum(attention(*q_k_v, rules(spec)) ** 2)

        def penalty(*q_k_v):
            return sum(jnp.sum(x**2) for x in jax.grad(loss, argnums=(0, 1, 2))(*q_k_v))

        return jax.grad(penalty, argnums=(0, 1, 2))(*arguments(spec))

    assert_close(of_gradient(in_small_blocks), of_gradient(reference), kind="composite")
