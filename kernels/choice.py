"""Which implementation of each operation is the fastest exact one for a platform."""

import dataclasses
import functools
import logging

import jax

from kernels.conv import xla as conv
from kernels.dense import xla as dense
from kernels.max_pool import xla as max_pool
from zoo.functional.ops import Ops

logger = logging.getLogger("kernels")

# platform -> operation -> (function, why it wins there); what is not named stays the reference.
# The measurements are the entries named after each operation in benchmarks/results/bench.json.
CHOICES = {
    "cpu": {
        "conv": (conv.conv, "its kernel gradient is matrix products, not a window of image size"),
        "dense": (dense.dense, "one two-dimensional product whatever the leading axes"),
        "max_pool": (max_pool.max_pool, "its gradient is a mask, not a select-and-scatter"),
    },
    "gpu": {},
    "tpu": {},
}
ALIASES = {"cuda": "gpu", "rocm": "gpu"}


def best(platform: str | None = None) -> Ops:
    """The fastest exact implementation of each operation, as `zoo.create(..., ops=...)` takes it.

    The choice and its reason are logged once a platform, at level INFO of the logger `kernels`.

    Args:
        platform: "cpu", "gpu" (also "cuda", "rocm") or "tpu"; by default the one JAX runs on.

    Raises:
        ValueError: no such platform.
    """
    platform = jax.default_backend() if platform is None else platform
    platform = ALIASES.get(platform, platform)
    if platform not in CHOICES:
        raise ValueError(f"{platform=} is none of {', '.join([*CHOICES, *ALIASES])}")
    return _best(platform)


@functools.cache
def _best(platform: str) -> Ops:
    for operation in (field.name for field in dataclasses.fields(Ops)):
        if operation in CHOICES[platform]:
            function, why = CHOICES[platform][operation]
            logger.info("%s: %s -> %s (%s)", platform, operation, backend(function), why)
        else:
            logger.info("%s: %s -> reference (nothing faster is written)", platform, operation)
    return Ops(**{name: function for name, (function, _) in CHOICES[platform].items()})


def describe(ops: Ops) -> dict[str, str]:
    """Operation -> name of the backend that `ops` uses for it, as `result.json` records it."""
    return {field.name: backend(getattr(ops, field.name)) for field in dataclasses.fields(ops)}


def backend(function) -> str:
    """ "reference" for `zoo.functional`, the file's name for a kernel ("xla"), else where it is."""
    module = function.__module__
    if module.startswith("zoo.functional."):
        return "reference"
    return module.rpartition(".")[2] if module.startswith("kernels.") else module
