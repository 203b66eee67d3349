"""A plan as people read it."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Found = dict[str, Any]

UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def show(found: Found) -> None:
    """Prints a plan on standard output."""
    # A pipe has no width of its own; nothing there should be folded or cut.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    verdict = "fits" if found["fits"] else "does NOT fit"
    console.print(f"{found['name']} on {found['target']}: {verdict}\n")
    console.print(_table(("", ""), facts(found)))
    if moved := found.get("collectives"):
        console.print()
        rows = [
            (kind, f"{each['count']:,}", scaled(each["bytes"], "B"), scaled(each["wire"], "B"))
            for kind, each in moved.items()
        ]
        console.print(
            _table(("collective", "times a step", "bytes of results", "sent by a device"), rows)
        )
    if found["tried"]:
        console.print()
        header = ("also tried", "mesh", "batch", "micro-batches", "remat", "memory", "")
        console.print(_table(header, map(attempt, found["tried"])))
    if found["instead"]:
        console.print(
            f"\nthis fits: {found['instead']['target']}, {remedy(found, found['instead'])}"
        )


def facts(found: Found) -> list[tuple[str, str]]:
    """What there is to say of one case, as names and values."""
    sizes, operations = found["bytes"], found.get("flops")
    rows = [
        ("parameters", f"{found['parameters']:,}"),
        ("devices", f"{found['devices']}, {mesh(found)}"),
        ("batch", batch(found)),
        ("micro-batches", str(found["num_microbatches"])),
        ("computed in", found["compute_dtype"]),
        ("rematerialised", {True: "yes", False: "no", None: "no such choice"}[found["remat"]]),
        *((f"{kind} a device", scaled(size, "B")) for kind, size in sizes.items()),
        ("usable memory a device", scaled(found["usable_bytes"], "B")),
    ]
    if operations:
        rows += [
            ("operations a step", scaled(operations["step"], "FLOP")),
            ("of them the model's own", scaled(operations["model"], "FLOP")),
        ]
    if estimate := found.get("estimate"):
        rows += [
            *((f"estimate: {part}", f"{s:.3g} s") for part, s in estimate["seconds"].items()),
            (
                "estimate: a step",
                f"{estimate['step_seconds']:.3g} s at least, bound by {estimate['bound']}",
            ),
            ("estimate: MFU", f"{estimate['mfu']:.0%} at most"),
        ]
    if "compile_seconds" in found:
        cpu = f"{found['compile_cpu_seconds']} s of all processor cores"
        rows.append(("compiled in", f"{found['compile_seconds']} s, {cpu}"))
    if peak := found.get("peak_memory_bytes"):
        rows.append(("by a process of", scaled(peak, "B")))
    return rows


def attempt(found: Found) -> tuple[str, ...]:
    """One row of what else was tried."""
    return (
        found["target"],
        mesh(found),
        batch(found),
        str(found["num_microbatches"]),
        "yes" if found["remat"] else "no",
        memory(found),
        "fits" if found["fits"] else "does not",
    )


def remedy(asked: Found, found: Found) -> str:
    """What is different where it fits."""
    words = [mesh(found)]
    if found["remat"] != asked["remat"]:
        words.append("rematerialised (--model.remat)")
    if found["num_microbatches"] != asked["num_microbatches"]:
        words.append(f"--num-microbatches {found['num_microbatches']}")
    return ", ".join([*words, f"{memory(found)} a device"])


def memory(found: Found) -> str:
    """Bytes of a device as far as they are known."""
    sizes = found["bytes"]
    if "total" in sizes:
        return scaled(sizes["total"], "B")
    if "temporaries" in sizes:
        return f"{scaled(sizes['temporaries'], 'B')} of temporaries"
    return f"{scaled(sizes['arguments'], 'B')} of arguments"


def mesh(found: Found) -> str:
    """As `--mesh` takes it; axes of one device are left out."""
    axes = [f"{axis}={size}" for axis, size in found["mesh"].items() if size > 1]
    return ",".join(axes) or "data=1"


def batch(found: Found) -> str:
    return "; ".join(f"{name} {'x'.join(map(str, s))}" for name, s in found["batch"].items())


def scaled(value: float | int, unit: str) -> str:
    """With three digits and a prefix: 4.26 GB."""
    for factor, prefix in UNITS:
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=any(header))
    for name in header:
        table.add_column(name, overflow="fold", no_wrap=not sys.stdout.isatty())
    for row in rows:
        table.add_row(*row)
    return table
