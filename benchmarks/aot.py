"""Every recipe's training step, compiled for hardware that need not be here: bytes and FLOPs.

    python -m benchmarks aot                   # all recipes; writes benchmarks/results/aot.json
    python -m benchmarks aot digits-mlp        # this one; the others' figures stay

It is the step that `python -m train run` compiles, with the recipe's own sizes and batch, of the
shape with most bytes where batches have several, and with the operations that are chosen for that
hardware. Model and optimiser are shapes only, so nothing is computed; the data are read, because
they decide the sizes of vocabularies and batches. The file:

    versions    of what decides the figures
    recipes     recipe -> batch (input -> shape), flops of a step as the TPU's compiler counts them
                (CUDA's does not), and for each target what `train.targets.measured` says, with the
                SHA-256 of the program before it was compiled, its compiler's version and options

`tests/aot/test_recipes.py` fails where a step takes other bytes than the file says. To compile all
takes a quarter of an hour, so it compiles only those whose SHA-256 is no longer that of the file.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import WorkerError
from benchmarks.record import RESULTS
from train.errors import UserError
from train.options import nearest
from train.recipes import RECIPES
from train.result import write_json
from train.targets import H100_CONFIG, Target, measured, target

TARGETS = ("h100", "v5e")
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "libtpu",
    "jax-cuda12-plugin",
    "jax-cuda12-pjrt",
    "nvidia-cuda-nvcc-cu12",
    "nvidia-cudnn-cu12",
)
FILE = RESULTS / "aot.json"

Found = dict[str, Any]  # of one recipe on one target: batch and figures, or the error
Batch = dict[str, Any]  # input -> array


def write(names: Sequence[str], say: Callable[[str], None], path: Path = FILE) -> Path:
    """Compiles the named recipes, or all, for every target, and writes the file again.

    Raises:
      UserError: an unknown recipe, or a compiler that is not installed.
      WorkerError: a step does not compile.
    """
    for name in names:
        if name not in RECIPES:
            raise UserError(nearest("recipe", name, RECIPES))
    if problem := next(filter(None, (target(name).missing() for name in TARGETS)), None):
        raise UserError(problem)
    recipes = read(path) if path.exists() else {}
    for name in names or RECIPES:
        recipes[name] = {"batch": None, "flops": None}
    for chip in TARGETS:
        for name, found in compiled(chip, names or list(RECIPES)):
            if "error" in found:
                raise WorkerError(f"{name} does not compile for {chip}:\n{found['error']}")
            say(f"{chip} {name}: {found['bytes']:,} bytes, compiled in {found['seconds']} s")
            del found["seconds"]
            recipes[name]["batch"] = found.pop("batch")
            recipes[name]["flops"] = found.pop("flops") or recipes[name]["flops"]
            recipes[name][chip] = found
    ordered = {name: recipes[name] for name in RECIPES if name in recipes}
    write_json(path, {"versions": versions(), "recipes": ordered})
    return path


def read(path: Path = FILE) -> dict[str, dict[str, Any]]:
    """Recipe -> what the file says of it."""
    return json.loads(path.read_text())["recipes"]


def versions() -> dict[str, str]:
    """Of the packages on which the figures depend."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def environment(chip: str) -> dict[str, str]:
    """What a process that compiles for a chip must find when JAX is first imported there."""
    path = os.pathsep.join(filter(None, [str(RESULTS.parent.parent), os.environ.get("PYTHONPATH")]))
    # A kernel's program names the lines that it comes from else, and their files by full path.
    without_places = {"JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0"}
    return os.environ | {"PYTHONPATH": path} | without_places | target(chip).environment()


def fingerprint(lowered: Any, options: dict[str, Any] | None = None) -> str:
    """SHA-256 of all that decides what a compiler makes of a program.

    Where it is the same, so are the compiled program and its figures. Ask for it in a process that
    has the chip's `environment`.
    """
    decides = [lowered.as_text(), versions(), options, os.environ.get("XLA_FLAGS"), H100_CONFIG]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def compiled(
    chip: str, names: Iterable[str], *, only_changed: bool = False
) -> Iterator[tuple[str, Found]]:
    """Each recipe as soon as it is compiled, by one process for all of them.

    Args:
      chip: one of TARGETS.
      names: of recipes.
      only_changed: give the file's figures for programs that are still the ones it speaks of.

    Raises:
      WorkerError: that process ended before its work.
    """
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.aot", chip, str(int(only_changed)), *names],
            env=environment(chip),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None  # PIPE above
            for line in process.stdout:
                yield tuple(json.loads(line))
            if process.wait():
                errors.seek(0)
                tail = "\n".join(errors.read().splitlines()[-15:])
                raise WorkerError(f"compiling for {chip} ended with {process.returncode}:\n{tail}")
        finally:
            process.kill()  # where the caller went away before the end


def compile_step(name: str, chosen: Target, only_changed: bool) -> Found:
    """One recipe's step, for the first device of the target."""
    import kernels

    start = time.perf_counter()
    lowered, batch = lower_step(name, chosen)
    options = kernels.compiler_options(chosen.platform)
    program = fingerprint(lowered, options)
    recorded = read().get(name, {}) if only_changed else {}
    if recorded.get(chosen.chip, {}).get("program") == program:
        figures = recorded[chosen.chip]
    else:
        figures = measured(lowered.compile(compiler_options=options))
    shapes = {key: list(array.shape) for key, array in batch.items()}
    seconds = round(time.perf_counter() - start, 1)
    return {"batch": shapes, "seconds": seconds, **figures, "program": program}


def lower_step(name: str, chosen: Target) -> tuple[Any, Batch]:
    """The program of a step before it is compiled, and the batch that it is for."""
    import jax
    from flax import nnx

    import kernels
    from train.data import train_batches
    from train.step import flat_step, form
    from train.tasks import make_task

    recipe = RECIPES[name].load()
    task = make_task(recipe, kernels.best(chosen.platform))
    batches = train_batches(task.data.train, batch_size=recipe.batch_size, seed=recipe.seed)
    batch = max(batches.examples(), key=lambda b: sum(array.nbytes for array in b.values()))
    objects, leaves = form(nnx.eval_shape(lambda: task.build(nnx.Rngs(recipe.seed))))

    sharding = jax.sharding.SingleDeviceSharding(chosen.devices()[0])
    placed = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        (leaves, batch),
    )
    with chosen.tracing():
        step = flat_step(objects, task.train_step)
        return jax.jit(step, donate_argnums=0).lower(*placed), batch


def main(chip: str, only_changed: str, *names: str) -> None:
    """What the process of a target does: a line of JSON for each recipe."""
    for name in names:
        try:
            found = compile_step(name, target(chip), bool(int(only_changed)))
        except Exception:
            found = {"error": traceback.format_exc()}
        print(json.dumps([name, found]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
