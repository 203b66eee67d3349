"""Runs an entry: prepares, compares the first values, lets the competitors take turns, sums up."""

import datetime
import importlib.util
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, stats
from benchmarks.entry import OURS, Entry, load
from benchmarks.process import Worker, prepare

COMPARED = 3  # units whose values must agree before anything is timed
Say = Callable[[str], None]


class Mismatch(Exception):
    """A competitor's values differ from ours: it does other work, so its time means nothing."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    rounds: int = 12
    quick: bool = False  # small sizes, two rounds: shows that the benchmark works, measures nothing
    threads: int = field(default_factory=machine.available_threads)
    patience: float = 900.0  # seconds a worker may take for an answer, compilation included

    def __post_init__(self):
        if min(self.rounds, self.threads) < 1:
            raise ValueError(f"rounds={self.rounds} and threads={self.threads} must be positive")


def run(module: str, effort: Effort, say: Say) -> dict[str, Any]:
    """Run the entry that `module` defines; its part of the results file (see `results.py`).

    Raises:
        Mismatch: a competitor does other work.
        WorkerError: a competitor failed.
    """
    entry = load(module)
    names, left_out = _present(entry)
    for name, why in left_out.items():
        say(f"{entry.name}: without {name} ({why})")
    peak = machine.peak_flops(effort.threads)
    load_before = machine.load_average()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        arrays = str(Path(folder) / "arrays.npz")
        flops = prepare(module, arrays, effort.threads, effort.quick)
        workers = {}
        for name in names:
            say(f"{entry.name}: setting up {name}")
            worker = Worker(module, name, arrays, effort.threads, effort.patience)
            workers[name] = stack.enter_context(worker)
        values = {name: worker.advance(COMPARED)["values"] for name, worker in workers.items()}
        whole = {n: found for n, found in values.items() if not entry.competitors[n].part}
        disagreement = _compare(whole, entry.tolerance)
        setup = {name: worker.setup_seconds for name, worker in workers.items()}
        turns, others = _take_turns(entry, workers, effort, say)
    peak = max(peak, machine.peak_flops(effort.threads))  # before and after: other work hides it
    competitors = {
        name: _sum_up(entry, name, setup[name], disagreement.get(name), turns, flops, peak)
        for name in names
    }
    return {
        "summary": entry.summary,
        "unit": entry.unit,
        "quick": effort.quick,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rounds": len(turns[OURS]),
        "units_per_turn": entry.timed_per_turn,
        "flops": flops,
        "machine": machine.describe(effort.threads),
        "peak_flops": peak,
        "load_average": [load_before, machine.load_average()],
        "others_cpu": stats.median(others) if others else None,
        "values": values[OURS][:COMPARED],
        "left_out": left_out,
        "competitors": competitors,
        "promises": _judge(entry, competitors),
    }


def _present(entry: Entry) -> tuple[list[str], dict[str, str]]:
    """The competitors whose packages are installed, ours first, and why the others are not here."""
    left_out = {}
    for name, competitor in entry.competitors.items():
        missing = [p for p in competitor.requires if importlib.util.find_spec(p) is None]
        if missing:
            left_out[name] = f"{', '.join(missing)} is not installed"
    names = [OURS] + [n for n in entry.competitors if n != OURS and n not in left_out]
    return names, left_out


def _compare(values: dict[str, list[float]], tolerance: float) -> dict[str, float]:
    """Each competitor's largest relative difference from ours over the first values."""
    ours = values[OURS][:COMPARED]
    differences = {}
    for name, theirs in values.items():
        pairs = zip(ours, theirs[:COMPARED], strict=True)
        relative = [abs(b - a) / max(abs(a), 1e-30) for a, b in pairs]
        differences[name] = max(relative)
        if not all(difference <= tolerance for difference in relative):  # so is NaN a mismatch
            raise Mismatch(
                f"{name} does other work than ours: its first {COMPARED} values are "
                f"{theirs[:COMPARED]}, ours {ours} (relative difference "
                f"{differences[name]:.1e}, allowed {tolerance:.0e})"
            )
    return differences


def _take_turns(
    entry: Entry, workers: dict[str, Worker], effort: Effort, say: Say
) -> tuple[dict[str, list[list[float]]], list[float]]:
    """Seconds of each timed unit by competitor and round; the others' CPU share of each turn."""
    turns: dict[str, list[list[float]]] = {name: [] for name in workers}
    others: list[float] = []
    names = list(workers)
    for index in range(2 if effort.quick else effort.rounds):
        say(f"{entry.name}: round {index + 1}")
        first = index % len(names)  # nobody always follows the same neighbour's cold caches
        for name in names[first:] + names[:first]:
            workers[name].advance(1)
            before = _clocks(workers[name])
            seconds = workers[name].advance(entry.timed_per_turn)["seconds"]
            after = _clocks(workers[name])
            turns[name].append(seconds)
            if before and after:
                busy, own, wall = (b - a for a, b in zip(before, after, strict=True))
                others.append(min(max((busy - own) / (wall * effort.threads), 0.0), 1.0))
    return turns, others


def _clocks(worker: Worker) -> tuple[float, float, float] | None:
    """CPU seconds of all programs, CPU seconds of this worker, and the time."""
    busy = machine.busy_seconds()
    own = machine.process_seconds(worker.process.pid)
    return None if busy is None or own is None else (busy, own, time.perf_counter())


def _sum_up(
    entry: Entry,
    name: str,
    setup_seconds: float,
    disagreement: float | None,
    turns: dict[str, list[list[float]]],
    flops: float | None,
    peak: float,
) -> dict[str, Any]:
    ms = stats.summarize([1e3 * second for turn in turns[name] for second in turn])
    return {
        "what": entry.competitors[name].what,
        "setup_seconds": setup_seconds,
        "disagreement": disagreement,
        "ms": vars(ms),
        "ratio": vars(stats.ratios(turns[OURS], turns[name])),
        "peak_share": None if flops is None else flops / (ms.median / 1e3) / peak,
    }


def _judge(entry: Entry, competitors: dict[str, Any]) -> list[dict[str, Any]]:
    """What became of each promise whose competitors took part."""
    judged = []
    for promise in entry.promises:
        if not {promise.of, promise.against} <= competitors.keys():
            continue
        own, other = competitors[promise.of], competitors[promise.against]
        above = own["ms"]["median"] - other["ms"]["median"]
        ratio = other["ratio"]["median"] / own["ratio"]["median"]  # both are over ours
        kept, figures = True, []
        if promise.at_least_ratio is not None:
            kept &= ratio >= promise.at_least_ratio
            figures.append(f"{stats.short(ratio)}x")
        if promise.at_most_ms_above is not None:
            kept &= above <= promise.at_most_ms_above
            figures.append(f"{stats.short(above)} ms above")
        judged.append({"text": promise.text, "kept": kept, "figure": ", ".join(figures)})
    return judged
