"""From a row of the table to a compiled program, and what is read from that."""

import importlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.experimental.layout import Format, Layout

from benchmarks.aot import fingerprint
from kernels.attention.specs import SPECS as ATTENTIONS
from kernels.layer_norm.specs import SPECS as NORMS
from kernels.lstm.specs import SPECS as LSTMS
from kernels.softmax_cross_entropy.specs import SPECS as CROSS_ENTROPIES
from tests.aot.cases import Case
from train.targets import Target, measured
from zoo.functional.attention import Mask


def norm(case: Case) -> list[Any]:
    """x, scale and the bias of layer_norm; parameters are float32 whatever x is."""
    spec = NORMS[case.spec]
    x = jax.ShapeDtypeStruct((spec.batch, spec.steps, spec.dim), case.dtype)
    parameter = jax.ShapeDtypeStruct((spec.dim,), "float32")
    return [x, parameter, parameter] if case.operation == "layer_norm" else [x, parameter]


def attention(case: Case) -> list[Any]:
    """q, k, v and the mask."""
    spec = ATTENTIONS[case.spec]
    sizes = (spec.tokens, spec.heads), (spec.num_keys or spec.tokens, spec.kv_heads)
    q, k = (
        jax.ShapeDtypeStruct((spec.batch, size, heads, spec.width), case.dtype)
        for size, heads in sizes
    )
    lengths: Any = jax.ShapeDtypeStruct((spec.batch,), "int32") if spec.lengths else None
    both: Any = tuple(jax.ShapeDtypeStruct((spec.batch, size), "int32") for size, _ in sizes)
    segments = both if spec.segments else None
    return [q, k, k, Mask(causal=spec.causal, lengths=lengths, segments=segments)]


def cross_entropy(case: Case) -> list[Any]:
    """x, the kernel of the output layer, and targets."""
    spec = CROSS_ENTROPIES[case.spec]
    x, kernel = (spec.rows, spec.dim), (spec.dim, spec.vocab)
    arrays = [jax.ShapeDtypeStruct(shape, case.dtype) for shape in (x, kernel)]
    return [*arrays, jax.ShapeDtypeStruct((spec.rows,), "int32")]


def lstm(case: Case) -> list[Any]:
    """x, the state in float32, the weights, and a mask where sequences are padded."""
    spec = LSTMS[case.spec]
    state = jax.ShapeDtypeStruct((spec.batch, spec.dim), "float32")
    x, *weights = (
        jax.ShapeDtypeStruct(shape, case.dtype)
        for shape in (
            (spec.batch, spec.steps, spec.in_dim),
            (spec.in_dim, 4 * spec.dim),
            (spec.dim, 4 * spec.dim),
            (4 * spec.dim,),
        )
    )
    mask = jax.ShapeDtypeStruct((spec.batch, spec.steps), "bool") if spec.padded else None
    return [x, state, state, *weights, {"mask": mask}]


def known(case: Case) -> dict[str, Any]:
    """Arguments that are no arrays, by name."""
    return {"reverse": LSTMS[case.spec].reverse} if case.operation == "lstm" else {}


# Back end -> how the name of what its kernels became begins in the compiled program.
CUSTOM_CALL = {
    "cudnn": "__cudnn$fmhaSoftmax",
    "gpu": "__cudnn$fmhaSoftmax",
    "pallas_gpu": "__gpu$xla.gpu.triton",
    "pallas_tpu": "tpu_custom_call",
}

# Operation -> the folder of its kernels, and its arguments: shapes, or trees of them; the last may
# be a dict of those that are given by name.
OPERATIONS: dict[str, tuple[str, Callable[[Case], list[Any]]]] = {
    "attention": ("attention", attention),
    "linear_cross_entropy": ("softmax_cross_entropy", cross_entropy),
    "layer_norm": ("layer_norm", norm),
    "lstm": ("lstm", lstm),
    "rms_norm": ("layer_norm", norm),
}


def compile_case(case: Case, target: Target, recorded: dict[str, Any]) -> dict[str, Any]:
    """The promised kernels that are in the compiled program, and the memory that it takes.

    Args:
      case: what to compile.
      target: for its first device.
      recorded: what was found when the case was last compiled, and is given again where the program
        is still the one of then; may be empty.
    """
    lowered = lower_case(case, target)
    program = fingerprint(lowered)
    if recorded.get("program") == program:
        return recorded
    compiled = lowered.compile()
    calls = custom_calls(compiled.as_text() or "", CUSTOM_CALL[case.backend])
    names = [name for name in case.kernels.split() if any(name in call for call in calls)]
    return {"kernels": names, "temp_bytes": measured(compiled)["temp_bytes"], "program": program}


def lower_case(case: Case, target: Target) -> jax.stages.Lowered:
    """The program that its compiler is given."""
    folder, arguments_of = OPERATIONS[case.operation]
    module = importlib.import_module(f"kernels.{folder}.{case.backend}")
    function = called(partial(getattr(module, case.operation), **known(case)))
    arguments = arguments_of(case)
    sharding = jax.sharding.SingleDeviceSharding(target.devices()[0])

    def placed(tree):
        """Row by row, as inside a model: XLA would turn narrow arguments about, and turn back."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape,
                leaf.dtype,
                sharding=Format(Layout(major_to_minor=tuple(range(leaf.ndim))), sharding),
            ),
            tree,
        )

    with target.tracing():
        if case.passes == "backward":
            arguments = [jax.eval_shape(function, *arguments), *arguments]
            function = gradients(function)
        arguments = placed(arguments)
        results = placed(jax.eval_shape(function, *arguments))
        formats = jax.tree.map(lambda leaf: leaf.format, results)
        return jax.jit(function, out_shardings=formats).lower(*arguments)


def called(function: Callable) -> Callable:
    """`function`, given a dict of arguments with names as if it were one more."""

    def run(*arguments):
        *rest, last = arguments
        return function(*rest, **last) if isinstance(last, dict) else function(*arguments)

    return run


def gradients(function: Callable) -> Callable:
    """Of the arguments that have any, from the cotangents of the results."""

    def run(cotangents, *arguments):
        found = jax.vjp(function, *arguments)[1](cotangents)
        return [g for g in jax.tree.leaves(found) if g.dtype != jax.dtypes.float0]

    return run


def custom_calls(text: str, target: str) -> list[str]:
    """Of each of that target, the path of what it comes from, in which a kernel has its name."""
    lines = [line for line in text.splitlines() if f'custom_call_target="{target}' in line]
    return [" ".join(re.findall(r'op_name="([^"]*)"', line)) for line in lines]
