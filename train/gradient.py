"""The gradient of a loss, with the three things that every recipe may ask of it.

Mixed precision: the forward and backward pass run in ``bfloat16`` on a cast copy of the parameters,
which stay float32, and so does their gradient (Micikevicius et al. 2018; bfloat16 has float32's
range, so no loss scale is needed).
Accumulation: the batch is cut in micro-batches whose gradients are averaged, at the memory of one.
Synchronisation: ``sync`` averages across devices; on one device there is nothing to average.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from train.sync import Sync

Batch = dict[str, Array]
Metrics = dict[str, Array]
Loss = Callable[[nnx.Module, Batch, Array], tuple[Float[Array, ""], Metrics]]


def training_view(model: Any, sync: Sync) -> Any:
    """A view in which dropout drops and norms take the batch's own moments, through ``sync``."""
    return nnx.view(model, deterministic=False, sync=sync, raise_if_not_found=False)


def value_and_grad(
    loss: Loss,
    model: nnx.Module,
    batch: Batch,
    key: Array,
    *,
    sync: Sync,
    dtype: Any = jnp.float32,
    num_microbatches: int = 1,
) -> tuple[Metrics, Any]:
    """The loss's metrics and its gradient with respect to the parameters of ``model``.

    Args:
      loss: ``(model, batch, key) -> (mean loss, other metrics)``, each a mean over the batch.
      model: its normalisation statistics are updated in place.
      batch: arrays with leading axis B, divisible by ``num_microbatches``.
      key: a typed random key; each micro-batch draws from its own.

    Returns:
      ``{"train/loss", ...}`` and the float32 gradient, shaped as ``nnx.state(model, nnx.Param)``.
    """
    graphdef, params, statistics = nnx.split(model, nnx.Param, ...)

    def loss_of(params, statistics, batch, key):
        # jax.grad hands on what it does not differentiate as it is: variables of the outer trace,
        # which NNX will not update in this one. Mapping over them makes new ones.
        statistics = jax.tree.map(lambda x: x, statistics)
        live = nnx.merge(graphdef, optax.tree.cast(params, dtype), statistics)
        value, metrics = loss(live, batch, key)
        _, _, statistics = nnx.split(live, nnx.Param, ...)
        return value, ({"train/loss": value, **metrics}, statistics)

    gradient = jax.grad(loss_of, has_aux=True)
    if num_microbatches == 1:
        grads, (metrics, statistics) = gradient(params, statistics, batch, key)
    else:
        rows = jax.tree.map(lambda x: x.reshape(num_microbatches, -1, *x.shape[1:]), batch)

        def micro(carry, row_and_key):
            total, statistics = carry
            grads, (metrics, statistics) = gradient(params, statistics, *row_and_key)
            return (optax.tree.add(total, grads), statistics), metrics

        start = optax.tree.zeros_like(params), statistics
        keys = jax.random.split(key, num_microbatches)
        (total, statistics), metrics = jax.lax.scan(micro, start, (rows, keys))
        grads = jax.tree.map(lambda g: g / num_microbatches, total)
        metrics = jax.tree.map(lambda m: m.mean(0), metrics)

    nnx.update(model, statistics)
    return sync(metrics), sync(grads)
