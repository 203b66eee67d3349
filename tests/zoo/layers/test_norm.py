"""Batch norm's running moments, its views, and what it shares with many devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized, run
from zoo.layers import BatchNorm, GroupNorm, LayerNorm, RMSNorm


def test_running_moments_follow_the_documented_convention():
    norm, x = BatchNorm(3, decay=0.9), 5 + random(8, 3)
    norm(x)
    assert_close(norm.mean[...], 0.9 * 0 + 0.1 * np.mean(x, 0))
    assert_close(norm.var[...], 0.9 * 1 + 0.1 * np.var(x, 0))


def test_running_moments_converge_to_those_of_the_data():
    norm = BatchNorm(2, decay=0.8)
    x = jnp.array([[1.0, -4.0], [3.0, 4.0]])
    for _ in range(60):
        norm(x)
    assert_close(norm.mean[...], [2, 0])
    assert_close(norm.var[...], [1, 16])


def test_a_deterministic_view_uses_the_running_moments_and_keeps_them():
    norm = randomized(lambda: BatchNorm(3))
    before = run(norm, random(8, 3)).statistics
    result = run(nnx.view(norm, deterministic=True), random(8, 3))
    expected = (random(8, 3) - norm.mean) / jnp.sqrt(norm.var + 1e-5) * norm.scale + norm.bias
    assert_close(result.output, expected)
    assert_close(result.statistics, {"mean": norm.mean[...], "var": norm.var[...]})
    assert not jnp.allclose(before["mean"], norm.mean[...])


def test_views_share_statistics_with_the_module():
    norm = BatchNorm(3)
    nnx.view(norm, sync=lambda moments: moments)(5 + random(8, 3))
    assert (norm.mean[...] > 0.3).all()


def test_a_constant_channel_gives_zeros_and_no_nan():
    y = run(BatchNorm(2), jnp.full((16, 2), 1e4))
    assert jnp.isfinite(y.output).all()
    assert jnp.isfinite(y.input_gradient).all()


def test_synchronised_moments_are_those_of_the_whole_batch():
    """Two halves of a batch, averaging over a mapped axis, equal one norm over the whole of it."""
    x = random(8, 5, 3) + jnp.arange(8.0)[:, None, None]
    whole = run(BatchNorm(3), x)

    def half(x):
        norm = BatchNorm(3)
        y = nnx.view(norm, sync=partial(jax.lax.pmean, axis_name="data"))(x)
        return y, norm.mean[...], norm.var[...]

    y, mean, var = jax.vmap(half, axis_name="data")(x.reshape(2, 4, 5, 3))
    assert_close(y.reshape(x.shape), whole.output)
    assert_close({"mean": mean[1], "var": var[0]}, whole.statistics)


def test_the_scale_may_start_elsewhere():
    assert BatchNorm(3, initial_scale=0.0).scale[...].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "norm", [BatchNorm(8), LayerNorm(8), RMSNorm(8), GroupNorm(8, num_groups=2)]
)
def test_bfloat16_in_and_out_with_float32_statistics(norm):
    x = 3 + random(16, 4, 8)
    exact = run(norm, x)
    result = run(norm, x.astype(jnp.bfloat16))
    assert result.output.dtype == result.input_gradient.dtype == jnp.bfloat16
    assert_close(result.output, exact.output, kind="bf16")
    assert_close(result.gradients, exact.gradients, kind="bf16")
    assert {value.dtype for value in result.statistics.values()} <= {jnp.dtype("float32")}


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="num_groups=4 must divide dim=6"):
        GroupNorm(6, num_groups=4)
