"""``python -m train``: list the recipes, run one, evaluate, sample and export what it learnt."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

import kernels
from train.errors import NonFinite, UserError
from train.options import nearest, parse
from train.recipes import RECIPES
from train.shutdown import Shutdown
from train.simulated import give_threads

if TYPE_CHECKING:
    from train.runfolder import RunFolder

PROG = "python -m train"
PICTURES = (".png", ".svg", ".pdf")  # what `sample` draws
Json = Annotated[bool, tyro.conf.FlagCreatePairsOff]
RunDirectory = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class List:
    """Lists every recipe: what it trains, on what, and what it is expected to reach."""

    json: Json = False
    """Print one JSON array on standard output."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Evaluates the newest checkpoint of a run folder on its held-out split."""

    dir: RunDirectory
    """A folder that `run` wrote."""
    json: Json = False
    """Print one JSON object on standard output."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Exports the newest checkpoint: weights alone, or a program that runs without this package.

    safetensors: every parameter and statistic by name. stablehlo: the whole prediction, raw inputs
    to probabilities, for cpu, cuda and tpu and any batch size; `jax.export.deserialize` loads it.
    """

    dir: RunDirectory
    """A folder that `run` wrote."""
    format: Literal["stablehlo", "safetensors"]
    """What to write."""
    out: Path
    """The file to write."""
    json: Json = False
    """Print one JSON object on standard output."""


def run_options(name: str) -> tuple[type, Any]:
    """The options of ``run NAME``: a dataclass with every field of the recipe, and its defaults."""
    from train.config import Recipe

    @dataclass(frozen=True, kw_only=True)
    class Run:
        recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field()
        workdir: Path | None = None
        """The run folder (default: runs/RECIPE). A run that was cut off there goes on."""
        resume: Literal["auto", "never"] = "auto"
        """never: replace the run in the folder instead of going on with it."""
        parallel: Literal["jit", "pmap", "shard_map", "mesh"] = "jit"
        """How devices share the work: jit uses one, the others all that JAX has. On a CPU, several
        are simulated with the variable JAX_NUM_CPU_DEVICES=8."""
        mesh: str | None = None
        """Devices along the axes of --parallel mesh, as data=2,fsdp=2,tensor=2 (default: all along
        data). Rows of a batch lie over data and fsdp, parameters over fsdp and tensor."""
        distributed: Json = False
        """This is one of several processes that run this command together, on one machine or many.
        SLURM, Open MPI and TPU pods say which; elsewhere the next three options do."""
        coordinator: str | None = None
        """HOST:PORT of process 0, where the others find it."""
        num_processes: int | None = None
        """How many processes there are."""
        process_id: int | None = None
        """Which of them this is, from 0."""
        start_seconds: float = 45.0
        """How long processes wait for each other at the start."""
        json: Json = False
        """Print result.json on standard output, and nothing else there."""

    Run.__doc__ = f"{RECIPES[name].about}. Every field of the recipe can be set."
    return Run, Run(recipe=RECIPES[name].load())


def sample_options() -> type:
    """The options of ``sample``: a run folder, and every field of a request."""
    from train.task import SampleRequest

    @dataclass(frozen=True, kw_only=True)
    class Sample:
        """Shows a model at work: predictions on held-out examples, or text after a prompt."""

        dir: RunDirectory
        """A folder that `run` wrote."""
        request: Annotated[SampleRequest, tyro.conf.arg(name="")] = field(
            default_factory=SampleRequest
        )
        json: Json = False
        """Print one JSON object on standard output."""

    return Sample


def list_recipes(args: Sequence[str]) -> int:
    options = parse(List, f"{PROG} list", args)
    rows = [
        {
            "name": name,
            "model": row.model,
            "task": row.task,
            "dataset": row.dataset,
            "metric": row.metric,
            "direction": row.direction,
            "threshold": row.threshold if isinstance(row.threshold, float) else str(row.threshold),
            "seconds": row.seconds,
        }
        for name, row in RECIPES.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("recipe", "model", "dataset", "reaches", "time"):
        table.add_column(heading, overflow="fold", no_wrap=not sys.stdout.isatty())
    table.add_column("about")
    for row in rows:
        sign = ">=" if row["direction"] == "max" else "<="
        table.add_row(
            row["name"],
            row["model"],
            row["dataset"],
            f"{row['metric']} {sign} {row['threshold']}",
            f"{row['seconds']} s",
            RECIPES[row["name"]].about,
        )
    # A pipe has no width of its own; nothing there should be folded or cut.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0


def run(args: Sequence[str]) -> int:
    if not args or args[0].startswith("-"):
        print(_run_help(), file=sys.stdout if args and args[0] in ("-h", "--help") else sys.stderr)
        return 0 if args and args[0] in ("-h", "--help") else 2
    name, *rest = args
    if name not in RECIPES:
        raise UserError(nearest("recipe", name, RECIPES) + f" (see `{PROG} list`)")
    # The loop also sees to memory and signals, but importing JAX takes seconds, and starts threads.
    kernels.keep_freed_memory()
    with Shutdown(lambda line: print(line, file=sys.stderr)):
        return _run(name, [_alias(arg) for arg in rest])


def _run(name: str, args: Sequence[str]) -> int:
    kind, default = run_options(name)
    options = parse(kind, f"{PROG} run {name}", args, default)

    given = (options.coordinator, options.num_processes, options.process_id)
    if not options.distributed and any(value is not None for value in given):
        raise UserError(
            "--coordinator, --num-processes and --process-id are of runs in many processes; "
            "add --distributed"
        )
    give_threads(distributed=options.distributed)

    import jax

    from train import loop
    from train.distributed import Distributed, results_only
    from train.runfolder import RunFolder

    distributed = None
    if options.distributed:
        distributed = Distributed(*given, options.start_seconds)
        results_only()
    folder = RunFolder(options.workdir or Path("runs") / name)
    result = loop.run(
        options.recipe,
        workdir=folder.path,
        resume=options.resume,
        parallel=options.parallel,
        mesh=options.mesh,
        distributed=distributed,
    )
    if jax.process_index() > 0:
        return 0  # process 0 says what came of it
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        _say_result(result, folder)
    return 0


def _alias(arg: str) -> str:
    """``--data X`` is short for ``--data.name X``, ``--data-dir X`` for ``--data.data-dir X``."""
    flag, equals, value = arg.partition("=")
    return (
        {"--data": "--data.name", "--data-dir": "--data.data-dir"}.get(flag, flag) + equals + value
    )


def _run_help() -> str:
    width = max(map(len, RECIPES))
    recipes = "\n".join(f"  {name:{width}}  {row.about}" for name, row in RECIPES.items())
    return (
        f"usage: {PROG} run RECIPE [--workdir DIR] [--seed N] [--steps N] [--data tfds:NAME] "
        "[--parallel MODE] [FIELD ...]"
        f"\n\nTrains a recipe and writes a run folder with its report.\n\nrecipes:\n{recipes}\n\n"
        f"`{PROG} run RECIPE --help` lists every field that can be set."
    )


def _say_result(result: dict[str, Any], folder: "RunFolder") -> None:
    value = result["metrics"][f"eval/{result['metric']}"]
    verdict = {True: "passed", False: "MISSED", None: "no baseline to compare with"}
    facts = [verdict[result["passed"]]]
    if result["threshold"] is not None:
        facts.append(f"threshold {result['threshold']:.4f}")
    for name, needed in RECIPES[result["recipe"]].least.items():
        facts.append(f"{name} {result['metrics'][f'eval/{name}']:.4f}, at least {needed:.4f}")
    if baseline := result["baseline"]:
        facts.append(f"{baseline['name']} {baseline['value']:.4f}")
    print(f"{result['recipe']}: {result['metric']} {value:.4f}  ({', '.join(facts)})")
    print(f"report: {folder.report}")
    prog = PROG.replace("python", _python())
    print("try next:")
    print(f"  {prog} sample {folder.path}")
    print(f"  {prog} export {folder.path} --format stablehlo --out {folder.path}/model.stablehlo")
    print(f"  {prog} run {result['recipe']} --seed 1 --workdir {folder.path}-seed1")


def _python() -> str:
    """What to type for this interpreter: its path, unless ``python`` already means it."""
    if shutil.which("python") == sys.executable:
        return "python"
    near = os.path.relpath(sys.executable)
    return sys.executable if near.startswith(os.pardir) else near


def evaluate(args: Sequence[str]) -> int:
    options = parse(Eval, f"{PROG} eval", args)
    from train.evaluation import evaluate

    task, program, step = _load(options.dir)
    metrics = task.summarise(evaluate(program, task))
    metrics = {f"eval/{name}": value for name, value in metrics.items()}
    if options.json:
        print(json.dumps({"recipe": task.recipe.name, "step": step, "metrics": metrics}, indent=2))
    else:
        print(f"{task.recipe.name} at step {step}")
        for name, value in metrics.items():
            print(f"  {name:16}{value:.4f}")
    return 0


def sample(args: Sequence[str]) -> int:
    options = parse(sample_options(), f"{PROG} sample", args)
    out = options.request.out
    if out is not None:
        _check_out(out, PICTURES)
    task, program, step = _load(options.dir)
    if options.request.label is not None and not task.takes_label:
        raise UserError(f"--label: recipe {task.recipe.name!r} draws no classes; leave it out")
    rows = task.sample(program.objects(), options.request)
    if options.json:
        found = {"recipe": task.recipe.name, "step": step, "samples": rows}
        print(json.dumps({**found, "out": str(out) if out else None}, indent=2))
    elif {"prompt", "text"} <= rows[0].keys():  # texts that go on from a prompt
        for row in rows:
            if unseen := row.get("prompt_tokens_unseen"):
                print(f"the model saw all but the prompt's first {unseen} tokens", file=sys.stderr)
            print(row["prompt"].lstrip("\n") + row["text"])
    else:
        for row in rows:
            words = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
            print("  ".join(f"{k} {word}" for k, word in zip(row, words, strict=True)))
        if out:
            print(f"drawn in {out}")
    return 0


def export(args: Sequence[str]) -> int:
    options = parse(Export, f"{PROG} export", args)
    from train.export import FORMATS

    _check_out(options.out)
    task, program, _ = _load(options.dir)
    FORMATS[options.format](task, program.objects(), options.out)
    size = options.out.stat().st_size
    if options.json:
        print(
            json.dumps({"out": str(options.out), "format": options.format, "bytes": size}, indent=2)
        )
    else:
        print(f"{options.format} in {options.out} ({size:,} bytes)")
    return 0


def plan(args: Sequence[str]) -> int:
    # There is no GPU, and JAX, which is imported now, has its plug-in say so at each start.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from train.plan.command import plan

    return plan(args)


def _check_out(out: Path, suffixes: Sequence[str] = ()) -> None:
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file in it")
    if suffixes and out.suffix.lower() not in suffixes:
        raise UserError(f"--out {out}: it must end in {' or '.join(suffixes)}")


def _load(path: Path):
    from train import loop
    from train.progress import standard_error
    from train.runfolder import RunFolder

    return loop.restore(RunFolder(path), standard_error())


VERBS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "list": (list_recipes, "the recipes, and what each is expected to reach"),
    "run": (run, "train a recipe; a run that was cut off goes on"),
    "eval": (evaluate, "evaluate a run folder"),
    "sample": (sample, "show a trained model at work"),
    "export": (export, "write weights, or a program that runs without this package"),
    "plan": (plan, "compile a step for GPUs or TPUs that are not here: does it fit?"),
}


def _help() -> str:
    verbs = "\n".join(f"  {verb:8}{about}" for verb, (_, about) in VERBS.items())
    return (
        f"usage: {PROG} VERB ...\n\n{verbs}\n\nexamples:\n"
        f"  {PROG} list\n"
        f"  {PROG} run digits-convnet\n"
        f"  {PROG} run digits-convnet --optim.peak-lr 1e-3 --model.dense-dim 64\n"
        f"  {PROG} eval runs/digits-convnet\n\n`{PROG} VERB --help` says more."
    )


def main(args: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 done, 1 failed, 2 a mistake the user can mend.

    And 3 where a plan does not fit.
    """
    args = sys.argv[1:] if args is None else list(args)
    if not args or args[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    try:
        if args[0] not in VERBS:
            raise UserError(nearest("verb", args[0], VERBS))
        return VERBS[args[0]][0](args[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Endings that are no mistake of the user: a stop on request, a diverged run, a full disk."""
    import jax

    from train.shutdown import Stopped

    if isinstance(error, Stopped):
        if jax.process_index() == 0:
            print(error, file=sys.stderr)
        return error.exit_code
    if isinstance(error, NonFinite | OSError):
        print(f"error: {error}", file=sys.stderr)
        return 1
    raise error
