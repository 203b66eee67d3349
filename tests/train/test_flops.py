"""Operations counted in a traced program: against what XLA counts, and against formulas."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax

import zoo
from train.flops import count


def counted(function, *arguments) -> int:
    return count(jax.make_jaxpr(function)(*arguments))


def by_xla(function, *arguments) -> float:
    cost = jax.jit(function).lower(*arguments).compile().cost_analysis()
    assert cost is not None
    return cost["flops"]


X, W = jnp.ones((8, 16, 32)), jnp.ones((32, 64))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: x @ w,
        lambda x, w: jnp.einsum("btd,bsd->bts", x, x),
        lambda x, w: jax.vjp(lambda x: jnp.tanh(x @ w), x)[1](jnp.ones((8, 16, 64))),
    ],
)
def test_products_are_those_of_xla(function):
    assert counted(function, X, W) == pytest.approx(by_xla(function, X, W), rel=0.03)


def test_convolutions_are_those_of_xla():
    def convolve(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=numbers)

    x, kernel = jnp.ones((2, 17, 17, 8)), jnp.ones((3, 3, 8, 4))
    expected = 2 * (2 * 8 * 8 * 4) * (3 * 3 * 8)
    assert counted(convolve, x, kernel) == expected == by_xla(convolve, x, kernel)


def test_loops_count_their_trips():
    product = 2 * 4 * 4 * 4

    def loop(x):
        return lax.scan(lambda x, _: (jax.jit(jnp.matmul)(x, x), None), x, None, length=5)

    assert counted(loop, jnp.ones((4, 4))) == 5 * product
    assert counted(jax.vmap(loop), jnp.ones((3, 4, 4))) == 3 * 5 * product


def test_a_conditional_counts_its_larger_branch():
    def choose(x):
        return lax.cond(x.sum() > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert counted(choose, jnp.ones((4, 4))) == 2 * 2 * 4**3


def test_devices_that_share_a_product_count_all():
    mesh = jax.sharding.AbstractMesh((4,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("device")
    mapped = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=spec, out_specs=spec)
    assert counted(mapped, jax.ShapeDtypeStruct((8, 16), jnp.float32)) == 4 * 2 * (2 * 16 * 2)


@pytest.mark.parametrize("remat", [False, True])
def test_a_gpt_takes_six_operations_a_parameter_and_token(remat):
    """And as many more as attention has (Kaplan et al. 2020, section 2.1).

    Remat repeats a block but for its last product, which no gradient needs.
    """
    layers, dim, tokens, vocab = 3, 64, 32, 128
    model = nnx.eval_shape(
        lambda: zoo.create(
            "gpt-nano", rngs=nnx.Rngs(0), num_layers=layers, dim=dim, context=tokens,
            scan=True, remat=remat,
        )
    )  # fmt: skip
    graphdef, state = nnx.split(model)
    batch = jax.ShapeDtypeStruct((2, tokens), jnp.int32)

    def loss(state, x):
        return nnx.merge(graphdef, state).losses(x, x).mean()

    block = (12 * dim**2 + 2 * dim * tokens) * layers  # with the scores, and what they weigh
    repeated = (block - 4 * dim**2 * layers) if remat else 0
    expected = 2 * tokens * (6 * (block + vocab * dim) + 2 * repeated)
    assert counted(jax.grad(loss), state, batch) == expected
