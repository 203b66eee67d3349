"""Arrays that lie on the devices of several processes, of which each can touch only its own.

With one process all of this is what `jax.device_put` and `numpy.asarray` do.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def place_on(x: Any, where: NamedSharding) -> jax.Array:
    """An array, all of which every process has, on the devices of all of them."""
    if jax.process_count() == 1 or not _is_here(x):
        return jax.device_put(x, where)
    # device_put would have the processes compare what they have, one array after the other.
    if is_key(x):
        return on_words(lambda words: place_on(words, where), x)
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, where, lambda index: host[index])


def on_host(x: Any) -> np.ndarray:
    """A whole array, parts of which other processes may have: all of them must ask for it."""
    if _is_here(x) or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def on_first_device(x: jax.Array) -> jax.Array:
    """A copy of a whole array on this process's first device; all processes must ask for it."""
    first = jax.local_devices()[0]
    if _is_here(x):
        return jax.numpy.copy(jax.device_put(x, first))
    if is_key(x):
        return on_words(on_first_device, x)
    return jax.device_put(on_host(x), first)


def is_key(x: Any) -> bool:
    """Whether these are random keys, which few functions take as they are."""
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


def on_words(function: Callable[[jax.Array], Any], keys: jax.Array) -> jax.Array:
    """``function`` of the integers that random keys are made of, as keys again."""
    words = function(jax.random.key_data(keys))
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(keys))


def _is_here(x: Any) -> bool:
    return not isinstance(x, jax.Array) or x.is_fully_addressable
