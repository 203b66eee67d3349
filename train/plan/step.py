"""One training step, compiled for one target and mesh from shapes alone: what it takes there."""

import dataclasses
import math
import re
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from flax import nnx

import kernels
from train import chips, flops
from train.collectives import collectives
from train.config import Recipe
from train.data import train_batches
from train.layouts import variables
from train.mesh import MeshLayout, by_parts, mesh_sizes
from train.parallel import check_batch
from train.plan.estimate import estimate
from train.plan.presets import sizes
from train.recipes import RECIPES
from train.result import num_parameters
from train.step import Objects, flat_step, form
from train.targets import Target, measured
from train.tasks import task_class
from zoo.functional.ops import Ops

Found = dict[str, Any]  # JSON values
Batch = dict[str, jax.ShapeDtypeStruct]

NO_MEMORY = "RESOURCE_EXHAUSTED"
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Case:
    """A recipe, or a preset's, and where it runs."""

    recipe: Recipe
    target: Target
    mesh: str  # as `--mesh` takes it

    def __str__(self) -> str:
        facts = [f"batch {self.recipe.batch_size}"]
        if self.recipe.num_microbatches > 1:
            facts.append(f"{self.recipe.num_microbatches} micro-batches")
        if getattr(self.recipe.model, "remat", False):
            facts.append("rematerialised")
        return f"{self.target}, {self.mesh}, {', '.join(facts)}"


class Steps:
    """The steps of one recipe or preset; its data, where it has any, are read once."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.is_preset = recipe.name not in RECIPES
        self._devices: dict[Target, Any] = {}

    @cached_property
    def data(self) -> Any:
        """Of the recipe; of a preset their sizes."""
        recipe = self.recipe
        return sizes(recipe) if self.is_preset else task_class(recipe).load(recipe)

    def task(self, recipe: Recipe, ops: Ops) -> Any:
        return task_class(recipe)(recipe, self.data, ops)

    def objects(self, recipe: Recipe, ops: Ops = Ops()) -> Objects:
        """Model, optimiser and random streams as shapes."""
        return nnx.eval_shape(lambda: self.task(recipe, ops).build(nnx.Rngs(recipe.seed)))

    def batch(self, recipe: Recipe) -> Batch:
        """Of the shape with most bytes, where batches have several."""
        if self.is_preset:
            return {
                name: jax.ShapeDtypeStruct((recipe.batch_size, *shape), np.dtype(dtype))
                for name, (shape, dtype) in self.data.shapes().items()
            }
        source = self.data.train
        batches = train_batches(source, batch_size=recipe.batch_size, seed=recipe.seed).examples()
        largest = max(batches, key=lambda batch: sum(x.nbytes for x in batch.values()))
        return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in largest.items()}

    def layout(self, chosen: Target, mesh: str) -> MeshLayout:
        """The devices of a target in a grid.

        Raises:
          UserError: no such slice or mesh, or the one cannot be laid over the other.
        """
        if chosen not in self._devices:
            self._devices[chosen] = chosen.devices()
        devices = self._devices[chosen]
        return MeshLayout(mesh_sizes(mesh, len(devices)), devices)

    def compiled(self, case: Case) -> Found:
        """What a case takes, and whether that fits.

        Nothing is compiled where the state alone, which is the step's argument, does not fit.

        Raises:
          UserError: the mesh does not divide the model or the batch.
        """
        recipe, chosen = case.recipe, case.target
        ops = kernels.best(chosen.platform)
        layout, task = self.layout(chosen, case.mesh), self.task(recipe, ops)
        check_batch(layout, recipe.batch_size, task.pieces)
        objects = self.objects(recipe, ops)
        placed, usable = lying(layout, objects), chips.usable_bytes(chosen)
        found: Found = {
            "target": str(chosen),
            "devices": layout.num_devices,
            "mesh": layout.describe(),
            "parameters": num_parameters(objects),
            "batch": {name: list(x.shape) for name, x in self.batch(recipe).items()},
            "num_microbatches": recipe.num_microbatches,
            "remat": getattr(recipe.model, "remat", None),
            "compute_dtype": recipe.compute_dtype,
            "fits": False,
            "usable_bytes": usable,
        }
        if (held := held_bytes(placed)) > usable:
            return found | {"bytes": {"arguments": held}}
        start, cpu = time.perf_counter(), time.process_time()
        batch = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.rows)
            for name, x in self.batch(recipe).items()
        }
        seen, _ = form(layout.seen(objects))
        step = layout.train(flat_step(seen, task.train_step, layout.sync), placed)
        try:
            compiled = step.lower(placed, batch).compile(
                compiler_options=kernels.compiler_options(chosen.platform)
            )
        except jax.errors.JaxRuntimeError as error:
            if NO_MEMORY not in str(error):
                raise
            compiled = None
            found["bytes"] = {"arguments": held, **wanted(str(error))}
        found["compile_seconds"] = round(time.perf_counter() - start, 1)
        found["compile_cpu_seconds"] = round(time.process_time() - cpu, 1)  # of all cores
        found["flops"] = self.flops(recipe)
        if compiled is None:
            return found
        taken = bytes_of(compiled)
        moved = collectives(text_of(compiled))
        return found | {
            "fits": taken["total"] <= usable,
            "bytes": taken,
            "collectives": {kind: dataclasses.asdict(each) for kind, each in moved.items()},
            "estimate": estimate(chosen, layout.num_devices, taken, found["flops"], moved),
        }

    def flops(self, recipe: Recipe) -> dict[str, int]:
        """Of a step on all devices together: as it is, and what the model itself needs."""

        def counted(recipe: Recipe) -> int:
            # The reference's products: a kernel hides its own, and may repeat some.
            shape, leaves = form(self.objects(recipe))
            step = flat_step(shape, self.task(recipe, Ops()).train_step)
            return flops.count(jax.make_jaxpr(step)(leaves, self.batch(recipe)))

        step = counted(recipe)
        if not getattr(recipe.model, "remat", False):
            return {"step": step, "model": step}
        once = replace(recipe, model=replace(recipe.model, remat=False))
        return {"step": step, "model": counted(once)}


def lying(layout: MeshLayout, objects: Objects) -> list[Any]:
    """The arrays of objects as `MeshLayout.place` lays them on devices, as shapes.

    Raises:
      UserError: a mesh axis does not divide the axis that it should cut.
    """
    found = []
    _, leaves = form(objects)
    for leaf, variable in zip(leaves, variables(nnx.state(objects)), strict=True):
        sharding = layout.lies(variable, leaf.shape)
        shape = by_parts(leaf.shape, variable.parts)
        found.append(jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding))
    return found


def held_bytes(placed: list[Any]) -> int:
    """Of a state on one device, before the compiler pads anything."""
    total = 0
    for leaf in placed:
        total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total


def bytes_of(compiled: Any) -> dict[str, int]:
    """Of a compiled step on one device, by kind; what is written over arguments counts once."""
    figures: dict[str, Any] = measured(compiled)
    names = {"arguments": "argument", "temporaries": "temp", "outputs": "output"}
    parts = {name: figures[f"{of}_bytes"] for name, of in {**names, "aliases": "alias"}.items()}
    return {**parts, "total": figures["bytes"]}


def wanted(message: str) -> dict[str, int]:
    """What a compiler says that it wanted, where it refuses; nothing where it does not say."""
    found = re.search(r"([\d.]+)([KMGT])", message)
    if not found:
        return {}
    size = int(float(found[1]) * UNITS[found[2]])
    return {"temporaries": size} if "temporaries" in message else {"total": size}


def text_of(compiled: Any) -> str:
    """The program as HLO. JAX 0.10.2 cannot print all that a TPU's compiler makes."""
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return compiled.runtime_executable().hlo_modules()[0].to_string()
