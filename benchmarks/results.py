"""The results files: one JSON object for each kind of processor, in `benchmarks/results/speed`.

    schema     1
    entries    object, entry name -> what one run of it gave:
      summary, unit            what was done, and what one unit of it is called
      quick                    true: a smoke run with small sizes, whose figures mean nothing
      when                     UTC, ISO 8601
      rounds, units_per_turn   how often the competitors took turns, and units timed in each turn
      flops                    of one unit, or null: counted once, for all competitors
      machine                  cpu, cores, threads, system, versions {package: version}, commit
      peak_flops               the machine's own float32 matmul rate, FLOP/s, same threads, the best
                               of before and after; less than the truth where others_cpu is high
      load_average             [before, after], one minute's
      others_cpu               median share (0 to 1) of the cores that other programs took during
                               the turns, or null where the system does not tell
      values                   the first three values (losses) of ours
      left_out                 object, competitor -> why it did not take part
      competitors              object, name -> what it gave:
        what                   how it differs, if its name does not say
        setup_seconds          building, compiling and loading
        disagreement           largest relative difference from `values`; null for one that does a
                               part of the work alone
        ms                     {median, p10, p90, count} of one unit in milliseconds
        ratio                  {median, p10, p90, count} over the rounds of its time over ours
        peak_share             FLOP/s over peak_flops, or null
      promises                 list of {text, kept, figure}

A run replaces the entries that it ran and keeps the others. Each processor has a file of its own,
because who is faster depends on it: a library that is at its best on one may be far from it on
another.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

SCHEMA = 1
FOLDER = Path(__file__).resolve().parent / "results" / "speed"

_SUMMARY = {"median": float, "p10": float, "p90": float, "count": int}
_ENTRY = {
    "summary": str,
    "unit": str,
    "quick": bool,
    "when": str,
    "rounds": int,
    "units_per_turn": int,
    "flops": (float, None),
    "machine": {
        "cpu": str,
        "cores": int,
        "threads": int,
        "system": str,
        "versions": {...: str},
        "commit": str,
    },
    "peak_flops": float,
    "load_average": [float],
    "others_cpu": (float, None),
    "values": [float],
    "left_out": {...: str},
    "competitors": {
        ...: {
            "what": str,
            "setup_seconds": float,
            "disagreement": (float, None),
            "ms": _SUMMARY,
            "ratio": _SUMMARY,
            "peak_share": (float, None),
        }
    },
    "promises": [{"text": str, "kept": bool, "figure": str}],
}


class ResultsError(ValueError):
    """A results file that is not one; the message says where it departs from the schema."""


def check(value: Any, shape: Any = None, where: str = "") -> None:
    """Raise `ResultsError` naming the first place where `value` departs from the schema."""
    shape = {"schema": int, "entries": {...: _ENTRY}} if shape is None else shape
    if isinstance(shape, dict):
        _check_object(value, shape, where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ResultsError(f"{where} must be a list, is {value!r}")
        for index, item in enumerate(value):
            check(item, shape[0], f"{where}[{index}]")
    elif isinstance(shape, tuple):
        if value is not None:
            check(value, shape[0], where)
    elif not (isinstance(value, shape) or (shape is float and type(value) is int)):
        raise ResultsError(f"{where} must be {shape.__name__}, is {value!r}")


def _check_object(value: Any, shape: dict[Any, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise ResultsError(f"{where or 'the file'} must be an object, is {value!r}")
    names = set(value) if ... in shape else set(shape)
    if names != set(value):
        raise ResultsError(
            f"{where or 'the file'}: {sorted(names ^ set(value))} missing or unknown"
        )
    for name in value:
        check(value[name], shape.get(name, shape.get(...)), f"{where}.{name}".lstrip("."))


def read(path: Path) -> dict[str, Any]:
    """The entries of a results file.

    Raises:
        ResultsError: the file is not JSON, of another schema, or departs from it.
        OSError: it cannot be read.
    """
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from None
    try:
        check(data)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from None
    if data["schema"] != SCHEMA:
        raise ResultsError(f"{path} has schema {data['schema']}, this program reads {SCHEMA}")
    return data["entries"]


def path_for(processor: str, folder: Path = FOLDER) -> Path:
    """The results file of a kind of processor, such as `intel-xeon-processor.json`."""
    plain = re.sub(r"\((r|tm)\)", "", processor.lower())
    return folder / f"{'-'.join(re.findall('[a-z0-9]+', plain))}.json"


def read_all(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Processor -> the entries of its file, in the order of the files' names; raises as `read`."""
    files = (read(path) for path in sorted(folder.glob("*.json")))
    return {next(iter(entries.values()))["machine"]["cpu"]: entries for entries in files if entries}


def update(path: Path, entries: dict[str, Any]) -> None:
    """Write the entries into a results file beside those that it has; all of it or nothing."""
    known = read(path) if path.exists() else {}
    data = {"schema": SCHEMA, "entries": dict(sorted((known | entries).items()))}
    check(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(data, indent=1) + "\n")
    draft.replace(path)
