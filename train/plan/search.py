"""What is asked, where it is put where nobody says so, and what fits where that does not."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from train import chips
from train.config import Recipe
from train.errors import UserError
from train.layouts import DATA
from train.mesh import mesh_sizes
from train.plan.presets import rematerialised, rows_per_device
from train.plan.step import Case, Found, Steps, held_bytes, lying
from train.targets import Target

Say = Callable[[str], None]

LIMIT = 600.0  # seconds of trying, after which nothing else is compiled


@dataclass(frozen=True)
class Request:
    """A recipe or preset with all its fields, and where it shall run."""

    recipe: Recipe
    target: Target
    mesh: str | None = None
    fixed_batch: bool = True  # the batch was chosen; else it grows with the devices
    smallest: bool = False  # on the smallest slice of the chip that holds it


def plan(request: Request, say: Say) -> Found:
    """Compiles what is asked; where that does not fit, looks for what does.

    Gives what `Steps.compiled` says, and what else was tried: `tried`, and of these the first that
    fits as `instead`.

    Raises:
      UserError: a mistake in the request.
    """
    steps = Steps(request.recipe)
    if request.smallest:
        slices = [Target(request.target.chip, s) for s in chips.chip_of(request.target).slices]
        last, tried = _first(steps, (_case(steps, request, each) for each in slices), say)
        return {"name": request.recipe.name, **last, "tried": tried[:-1], "instead": None}
    case = _case(steps, request, request.target, request.mesh)
    say(f"compiling {request.recipe.name} for {case}")
    found = {"name": request.recipe.name, **steps.compiled(case), "tried": [], "instead": None}
    if not found["fits"]:
        last, found["tried"] = _first(steps, remedies(steps, request, case), say)
        found["instead"] = last if last.get("fits") else None
    return found


def _first(steps: Steps, cases: Iterable[Case], say: Say) -> tuple[Found, list[Found]]:
    """The first case that fits, or the last of all; and of all that were tried the main facts."""
    start, last, tried = time.perf_counter(), {}, []
    for case in cases:
        if time.perf_counter() - start > LIMIT:
            say(f"nothing else is tried after {LIMIT:.0f} s")
            break
        say(f"trying {case}")
        try:
            last = steps.compiled(case)
        except UserError as error:  # it does not divide what it should
            say(f"  {error}")
            continue
        facts = ("target", "mesh", "batch", "num_microbatches", "remat", "fits", "bytes")
        tried.append({name: last[name] for name in facts})
        if last["fits"]:
            break
    return last, tried


def _case(steps: Steps, request: Request, chosen: Target, mesh: str | None = None) -> Case:
    """With the batch and the mesh that nobody has chosen."""
    recipe = request.recipe
    if not request.fixed_batch:
        recipe = replace(recipe, batch_size=rows_per_device(recipe) * chips.count(chosen))
    return Case(recipe, chosen, mesh or default_mesh(steps, recipe, chosen))


def default_mesh(steps: Steps, recipe: Recipe, chosen: Target) -> str:
    """That of `run` for a recipe; for a preset `fsdp` over as many devices as divide its widths.

    The other devices lie along `data`. So no device holds more of the state than it must, and what
    is moved for that grows with the model and not with the batch. In a slice with three sides two
    are enough where that leaves half of the memory: over all three the compiler gathers by a sum
    with zeros, which sends twice as much.
    """
    number = chips.count(chosen)
    if not steps.is_preset:
        return f"{DATA}={number}"
    three_sides = len([side for side in chosen.shape.split("x") if side != "1"]) == 3
    objects, meshes = steps.objects(recipe), []
    for fsdp in (n for n in range(number, 0, -1) if number % n == 0):
        mesh = grid(number, fsdp=fsdp)
        try:
            held = held_bytes(lying(steps.layout(chosen, mesh), objects))
        except UserError:  # it does not divide a width, or is no product of sides
            continue
        meshes.append(mesh)
        if fsdp < number or not three_sides:
            return mesh if held <= chips.usable_bytes(chosen) / 2 else meshes[0]
    return meshes[0]


def remedies(steps: Steps, request: Request, case: Case) -> Iterator[Case]:
    """What else might fit: on the same devices first, then larger slices of the chip."""
    chosen, number = case.target, chips.count(case.target)
    if recipe := rematerialised(case.recipe):
        case = replace(case, recipe=recipe)
        yield case
    recipe = case.recipe
    if steps.is_preset and (mesh := default_mesh(steps, recipe, chosen)) != case.mesh:
        yield (case := replace(case, mesh=mesh))
    rows = number // mesh_sizes(case.mesh, number)["tensor"]
    if (most := recipe.batch_size // rows) > recipe.num_microbatches:
        yield replace(case, recipe=replace(recipe, num_microbatches=most))
    for tensor in (2, 4, 8):
        if number % tensor == 0 and number > tensor:
            mesh = grid(number, fsdp=number // tensor, tensor=tensor)
            yield replace(case, mesh=mesh)
    for bigger in chips.larger(chosen, number):
        yield _case(steps, replace(request, recipe=recipe), bigger)


def grid(number: int, *, fsdp: int, tensor: int = 1) -> str:
    """All devices as `--mesh` takes them; what is left lies along `data`."""
    sizes: dict[str, Any] = {DATA: number // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}
    return ",".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1) or f"{DATA}=1"
