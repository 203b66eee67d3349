"""Which implementation of each operation is the fastest exact one for a platform."""

import dataclasses
import difflib
import functools
import importlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

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
            "from 129 queries on, blocks of weights that stay in the cache, not kept from 256 on",
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
    # there, they are chosen by hand: `kernels.choose(lstm="pallas_tpu")`.
    "gpu": {
        "attention": (
            gpu_attention.attention,
            "in bfloat16, without segments, cuDNN has no array of T·S numbers",
        ),
    },
    "tpu": {},
}
# Platform -> operation -> why it stays with the reference, though its kernels were measured there.
STAYS: dict[str, dict[str, str]] = {
    "cpu": {
        "layer_norm": "ours is faster alone on most processors, but gained 1 % of a GPT's step",
        "rms_norm": "as layer_norm",
    },
    "gpu": {},
    "tpu": {},
}
UNMEASURED = "no other was measured here; kernels.choose takes those in Pallas"
# What a function leaves to the reference, or else decides by the call.
LEAVES = {
    attention.attention: f"the reference up to {attention.FEW_QUERIES} queries",
    conv.conv: f"the reference for windows over more than {conv.FEW_CHANNELS} channels",
    gpu_attention.attention: "cuDNN where it serves the call, else the reference",
    softmax_cross_entropy.linear_cross_entropy: (
        f"the reference up to {softmax_cross_entropy.TILE} words"
    ),
}
# Operation -> the folder of its kernels, and the back ends in it that can be asked for.
IN_PALLAS = "pallas_gpu", "pallas_tpu"
KERNELS = {
    "attention": ("attention", ("xla", "cudnn", *IN_PALLAS)),
    "conv": ("conv", ("xla",)),
    "conv_transpose": ("conv_transpose", ("xla",)),
    "dense": ("dense", ("xla",)),
    "layer_norm": ("layer_norm", ("xla", *IN_PALLAS)),
    "linear_cross_entropy": ("softmax_cross_entropy", ("xla", *IN_PALLAS)),
    "lstm": ("lstm", ("xla", *IN_PALLAS)),
    "max_pool": ("max_pool", ("xla",)),
    "rms_norm": ("layer_norm", ("xla", *IN_PALLAS)),
}
# Back end -> the platform that it is bound to, and what that takes.
NEEDS = {
    "cudnn": ("gpu", "an NVIDIA GPU"),
    "pallas_gpu": ("gpu", "an NVIDIA GPU"),
    "pallas_tpu": ("tpu", "a TPU"),
}
# XLA's options, for the convolutions, products and sums inside a compiled step. By default the CPU
# backend gives convolutions to YNNPACK, which computes the gradient with respect to the kernel
# several times slower than XLA's other library, Eigen. YNNPACK's sums, as in batch norm, stay, and
# so do its products: large ones and those of few rows, as in a step of an LSTM, take less than by
# Eigen. Eigen is better at many small ones, as in attention, but a program has one choice.
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


def choose(platform: str | None = None, **backends: str) -> Ops:
    """`best(platform)` with other back ends for some operations: `choose(lstm="pallas_tpu")`.

    Nothing takes the place of what was asked for: a call that it cannot serve raises the reason.

    Args:
        platform: as in `best`.
        **backends: for an operation "reference", or a file of its folder in `kernels`.

    Raises:
        ValueError: no such platform, operation or back end.
        NotImplementedError: the back end cannot run on the platform.
    """
    platform = _known(platform)
    chosen = {name: _chosen(name, wanted, platform) for name, wanted in backends.items()}
    return dataclasses.replace(_best(platform), **chosen)


def _chosen(operation: str, wanted: str, platform: str) -> Callable[..., Any]:
    _check("operation", operation, [field.name for field in dataclasses.fields(Ops)])
    folder, files = KERNELS.get(operation, ("", ()))
    _check(f"back end of {operation}", wanted, ["reference", *files])
    where, need = NEEDS.get(wanted, (platform, ""))
    if where != platform:
        raise NotImplementedError(f"{operation}: {wanted} needs {need}; this is {platform}")
    if wanted == "reference":
        return getattr(Ops(), operation)
    return getattr(importlib.import_module(f"kernels.{folder}.{wanted}"), operation)


def _check(kind: str, given: str, valid: Iterable[str]) -> None:
    if given not in valid:
        near = difflib.get_close_matches(given, valid, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(valid)}"
        raise ValueError(f"no {kind} {given!r}; {hint}")


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
            why = STAYS[platform].get(operation, UNMEASURED)
            why = why if operation in KERNELS else "there is no other"
            logger.info("%s: %s -> reference (%s)", platform, operation, why)
    return Ops(**{name: function for name, (function, _) in CHOICES[platform].items()})


def describe(ops: Ops) -> dict[str, str]:
    """Operation -> the backend that `ops` uses for it, as `result.json` records it.

    With what that leaves to the reference, as in "xla (the reference up to 128 queries)".
    """
    used = {field.name: _unwrapped(getattr(ops, field.name)) for field in dataclasses.fields(ops)}
    return {
        name: _with_note(backend(function), LEAVES.get(function)) for name, function in used.items()
    }


def summary(ops: Ops, platform: str | None = None) -> str:
    """What `describe` says, a line for each backend, and why kernels were left out.

    Args:
        ops: as `best` or `choose` gave them.
        platform: as in `best`.

    Raises:
        ValueError: no such platform.
    """
    platform = _known(platform)
    lines: dict[str, list[str]] = {}
    for name in describe(ops):
        function = _unwrapped(getattr(ops, name))
        used, note = backend(function), LEAVES.get(function)
        if used == "reference":
            note = STAYS[platform].get(name)
        lines.setdefault(used, []).append(_with_note(name, note))
    said = [f"{used} for {', '.join(names)}" for used, names in lines.items()]
    if not STAYS[platform] and "reference" in lines:
        said.append(UNMEASURED)
    return "\n".join(f"kernels: {line}" for line in said)


def _with_note(name: str, note: str | None) -> str:
    return f"{name} ({note})" if note else name


def _unwrapped(function: Any) -> Any:
    """What a partial application calls."""
    return _unwrapped(function.func) if isinstance(function, functools.partial) else function


def backend(function) -> str:
    """ "reference" for `zoo.functional`, the file's name for a kernel ("xla"), else where it is."""
    module = _unwrapped(function).__module__
    if module.startswith("zoo.functional."):
        return "reference"
    return module.rpartition(".")[2] if module.startswith("kernels.") else module
