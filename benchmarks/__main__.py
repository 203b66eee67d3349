"""The command line: `python -m benchmarks run [NAME ...]`, `report`, `list`, `record`, ..."""

import argparse
import sys
from pathlib import Path

from benchmarks import results
from benchmarks.entries import ENTRIES
from benchmarks.entry import load
from benchmarks.process import WorkerError
from benchmarks.report import everywhere, markdown
from benchmarks.run import Effort, Mismatch, run
from train.hardware import processor
from train.options import nearest


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0, or 1 where a benchmark failed, or 2 where the user can mend it."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (results.ResultsError, OSError, ValueError) as error:
        return _complain(str(error), 2)
    except (Mismatch, WorkerError) as error:
        return _complain(str(error), 1)


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _run(options: argparse.Namespace) -> int:
    names = options.names or list(ENTRIES)
    for name in names:
        if name not in ENTRIES:
            raise ValueError(nearest("benchmark", name, ENTRIES))
    path = options.json or results.path_for(processor())
    kept = bool(options.json) or not options.quick  # figures that mean nothing are only shown
    if kept and path.exists():
        results.read(path)  # a file that cannot be added to is found before the work
    settings = {"rounds": options.rounds, "threads": options.threads}
    effort = Effort(
        quick=options.quick, **{key: value for key, value in settings.items() if value is not None}
    )
    for name in names:
        found = {name: run(ENTRIES[name], effort, lambda text: print(text, file=sys.stderr))}
        if kept:
            results.update(path, found)
        print(markdown(found))
    return 0


def _report(options: argparse.Namespace) -> int:
    if options.json:
        print(markdown(results.read(options.json)), end="")
    else:
        print(everywhere(results.read_all()), end="")
    return 0


def _record(options: argparse.Namespace) -> int:
    from benchmarks.record import record  # late: it loads everything that training needs
    from train.errors import UserError
    from train.shutdown import Stopped

    try:
        for path in record(options.names, options.seeds):
            print(path)
    except UserError as error:
        raise ValueError(str(error)) from error
    except Stopped as ending:
        return _complain(
            "stopped: a result is of a whole run, so nothing was recorded", ending.exit_code or 1
        )
    return 0


def _twin(options: argparse.Namespace) -> int:
    try:
        from benchmarks.gan_twin import compare
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed; pip install '.[parity]'") from error
    from train.errors import UserError
    from train.progress import standard_error

    try:
        print(compare(options.seeds, standard_error()))
    except UserError as error:
        raise ValueError(str(error)) from error
    return 0


def _aot(options: argparse.Namespace) -> int:
    from benchmarks.aot import write
    from train.errors import UserError

    try:
        print(write(options.names, lambda text: print(text, file=sys.stderr)))
    except UserError as error:
        raise ValueError(str(error)) from error
    return 0


def _plan(options: argparse.Namespace) -> int:
    from benchmarks.plan import write
    from train.errors import UserError

    try:
        print(write(options.names, lambda text: print(text, file=sys.stderr)))
    except UserError as error:
        raise ValueError(str(error)) from error
    return 0


def _list(options: argparse.Namespace) -> int:
    del options
    width = max(map(len, ENTRIES))
    for name, module in ENTRIES.items():
        entry = load(module)
        print(f"{name:{width}}  {entry.summary} ({', '.join(entry.competitors)})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="The same work done by us, by stock flax.nnx and by PyTorch, in one run.",
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    run_verb = verbs.add_parser("run", help="measure, and write this machine's results")
    run_verb.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; default: all")
    run_verb.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, two rounds: does it work? Kept only with --json",
    )
    run_verb.add_argument("--rounds", type=int, help="turns of each competitor; default: 12")
    run_verb.add_argument("--threads", type=int, help="of each competitor; default: all cores")
    run_verb.set_defaults(command=_run)
    report_verb = verbs.add_parser("report", help="print the results of all machines as Markdown")
    report_verb.set_defaults(command=_report)
    list_verb = verbs.add_parser("list", help="the benchmarks there are")
    list_verb.set_defaults(command=_list)
    record_verb = verbs.add_parser("record", help="train recipes whole and keep their results")
    record_verb.add_argument("names", nargs="*", metavar="RECIPE", help="which; default: all")
    record_verb.add_argument(
        "--seeds", nargs="+", type=int, default=(), metavar="N", help="default: the recipe's own"
    )
    record_verb.set_defaults(command=_record)
    twin_verb = verbs.add_parser(
        "twin", help="train digits-gan by PyTorch, and keep what it reaches"
    )
    twin_verb.add_argument(
        "--seeds", nargs="+", type=int, default=(0, 1, 2), metavar="N", help="default: 0 1 2"
    )
    twin_verb.set_defaults(command=_twin)
    aot_verb = verbs.add_parser(
        "aot", help="compile recipes' steps for hardware that is not here, and keep what they take"
    )
    aot_verb.add_argument("names", nargs="*", metavar="RECIPE", help="which; default: all")
    aot_verb.set_defaults(command=_aot)
    plan_verb = verbs.add_parser(
        "plan", help="compile large models for hardware that is not here, and keep what they take"
    )
    plan_verb.add_argument("names", nargs="*", metavar="PLAN", help="which; default: all")
    plan_verb.set_defaults(command=_plan)
    default = {
        run_verb: "benchmarks/results/speed/PROCESSOR.json",
        report_verb: "those of every processor",
    }
    for verb, otherwise in default.items():
        verb.add_argument(
            "--json", type=Path, metavar="FILE", help=f"the results file; default: {otherwise}"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
