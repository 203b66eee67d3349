"""Kernels inside `jax.shard_map` as it is by default: every array says where devices differ."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from tests.close import assert_close


def assert_differentiable_in_shards(
    function: Callable[..., Any], rows: tuple, parameters: tuple, *, runs: bool
) -> None:
    """Gradients of `function(*rows, *parameters)`, of which only the rows differ by device.

    Those of parameters must come out the same on every device, or JAX refuses the program.

    Args:
        runs: compare the numbers too, not the shapes alone; no kernel in Pallas runs on a CPU so.
    """
    arguments = *rows, *parameters
    places = [P("data")] * len(rows) + [P()] * len(parameters)
    floating = [i for i, a in enumerate(arguments) if jnp.issubdtype(a.dtype, jnp.floating)]

    def gradients(*arguments):
        def total(*arguments):
            return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(function(*arguments)))

        return jax.grad(total, floating)(*arguments)

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    results = tuple(places[i] for i in floating)
    sharded = jax.shard_map(gradients, mesh=mesh, in_specs=tuple(places), out_specs=results)
    if runs:
        assert_close(jax.jit(sharded)(*arguments), jax.jit(gradients)(*arguments))
    else:
        shapes = [a.shape for a in jax.eval_shape(sharded, *arguments)]
        assert shapes == [arguments[i].shape for i in floating]
