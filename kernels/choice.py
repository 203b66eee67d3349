"""Which implementation of each operation is the fastest exact one for a platform."""

import dataclasses
import functools
import logging

import jax

from kernels.attention import gpu as gpu_attention
from kernels.attention import xla as attention
from kernels.conv import xla as conv
from kernels.conv_transpose import xla as conv_transpose
from kernels.dense import xla as dense
from kernels.lstm import xla as lstm
from kernels.max_pool import xla as max_pool
from kernels.softmax_cross_entropy import xla as softmax_cross_entropy
from zoo.functional import attention as reference
from zoo.functional.ops import Ops

logger = logging.getLogger("kernels")

# platform -> operation -> (function, why it wins there); what is not named stays the reference.
# What the choices gain together is measured by `python -m benchmarks run convnet resnet18`.
CHOICES = {
    "cpu": {
        "attention": (
            attention.attention,
            "from 256 queries on, blocks of weights that stay in the cache and are not kept",
        ),
        "conv": (conv.conv, "1x1 windows and first layers are matrix products"),
        "conv_transpose": (
            conv_transpose.conv_transpose,
            "one product, and none with the zeros between spread rows",
        ),
        "dense": (dense.dense, "one two-dimensional product whatever the leading axes"),
        "lstm": (lstm.lstm, "the gradients of its weights are one product, not one a step"),
        "linear_cross_entropy": (
            softmax_cross_entropy.linear_cross_entropy,
            "the logits of a large vocabulary stay in the cache, a tile at a time",
        ),
        "max_pool": (max_pool.max_pool, "its gradient is a mask, not a select-and-scatter"),
    },
    # The kernels in Pallas are compiled for GPUs and TPUs on every commit. Until they are measured
    # there, they are chosen by hand: `zoo.Ops(lstm=kernels.lstm.pallas_tpu.lstm)`.
    "gpu": {
        "attention": (
            gpu_attention.attention,
            "in bfloat16, without segments, cuDNN has no array of T·S numbers",
        ),
    },
    "tpu": {},
}
# XLA's options, for the convolutions, products and sums inside a compiled step. By default the CPU
# backend gives convolutions to YNNPACK, which computes the gradient with respect to the kernel
# several times slower than XLA's other library, Eigen. YNNPACK's sums, as in batch norm, stay, and
# so do its products: those of few rows, as in a step of an LSTM, take half of Eigen's time.
COMPILER_OPTIONS: dict[str, dict[str, str | bool]] = {
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": (
            "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
        )
    },
    "gpu": {},
    "tpu": {},
}
# What to put in the place of a choice where gradients are differentiated.
TWICE_DIFFERENTIATED = {
    attention.attention: reference.attention,  # its backward pass is differentiated as it stands
    gpu_attention.attention: reference.attention,
    conv.conv: conv.twice_differentiated_conv,
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
    return _best(_known(platform))


def for_second_derivatives(ops: Ops) -> Ops:
    """`ops` for a step that differentiates a gradient, such as one with a gradient penalty."""
    used = {field.name: getattr(ops, field.name) for field in dataclasses.fields(ops)}
    found = {name: TWICE_DIFFERENTIATED.get(function) for name, function in used.items()}
    return dataclasses.replace(ops, **{name: f for name, f in found.items() if f})


def compiler_options(platform: str | None = None) -> dict[str, str | bool]:
    """XLA's options with which a step that uses `best(platform)` runs fastest.

    For the outermost program only: `jax.jit(f).lower(...).compile(compiler_options=...)`. Empty
    where nothing is to be gained, and where this version of XLA refuses them, which is logged.

    Args:
        platform: as in `best`.

    Raises:
        ValueError: no such platform.
    """
    return dict(_accepted(_known(platform)))


def _known(platform: str | None) -> str:
    platform = jax.default_backend() if platform is None else platform
    platform = ALIASES.get(platform, platform)
    if platform not in CHOICES:
        raise ValueError(f"{platform=} is none of {', '.join([*CHOICES, *ALIASES])}")
    return platform


@functools.cache
def _accepted(platform: str) -> dict[str, str | bool]:
    options = COMPILER_OPTIONS[platform]
    if platform != jax.default_backend():
        return options  # compiled elsewhere: it cannot be tried here
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        logger.warning("%s: XLA refuses %s (%s)", platform, options, str(error).split("\n")[0])
        return {}
    return options


@functools.cache
def _best(platform: str) -> Ops:
    for operation in (field.name for field in dataclasses.fields(Ops)):
        if operation in CHOICES[platform]:
            function, why = CHOICES[platform][operation]
            logger.info("%s: %s -> %s (%s)", platform, operation, backend(function), why)
        else:
            logger.info("%s: %s -> reference (nothing faster was measured)", platform, operation)
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
