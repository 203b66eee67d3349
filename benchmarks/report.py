"""Results as Markdown, ready for the documentation; in a terminal it reads as tables."""

from typing import Any

from benchmarks.entry import OURS
from benchmarks.stats import geometric_mean, short

BUSY = 0.1  # others' share of the cores from which a reader should be warned


RIVALS = {"flax.nnx": "stock `flax.nnx`", "torch": "PyTorch", "torch.compile": "`torch.compile`"}


def everywhere(machines: dict[str, dict[str, Any]]) -> str:
    """Of each processor: what became of the promises, side by side, and then all its entries.

    Args:
        machines: processor -> its entries, as `results.read_all` gives them.
    """
    parts = [_promises(machines)]
    for processor, entries in machines.items():
        parts += [f"### {processor}", markdown(entries, level=4).strip()]
    return "\n\n".join(parts) + "\n"


def markdown(entries: dict[str, Any], level: int = 3) -> str:
    """The geometric mean of the ratios, and a section an entry, headed by so many `#`."""
    parts = [_overview(entries)]
    parts += [_section(name, entry, "#" * level) for name, entry in entries.items()]
    return "\n\n".join(parts) + "\n"


def ratios(machines: dict[str, dict[str, Any]]) -> str:
    """A table a processor: one row an entry that stock Flax was measured in, how often as long."""
    return "\n\n".join(
        f"{processor}:\n\n{_ratios(entries)}" for processor, entries in machines.items()
    )


def _ratios(entries: dict[str, Any]) -> str:
    rows = []
    for entry in entries.values():
        others = {
            name: figures["ratio"]["median"] for name, figures in entry["competitors"].items()
        }
        if "flax.nnx" in others:
            cells = [f"{others[name]:.2f}x" if name in others else "" for name in RIVALS]
            rows.append(f"| {entry['summary'].rstrip('.')} | {' | '.join(cells)} |")
    head = f"| the same work by | {' | '.join(RIVALS.values())} |\n|---|---:|---:|---:|"
    return "\n".join([head, *rows])


def _promises(machines: dict[str, dict[str, Any]]) -> str:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for processor, entries in machines.items():
        for name, entry in entries.items():
            for promise in entry["promises"]:
                cells = found.setdefault((name, promise["text"]), {})
                cells[processor] = f"{_state(promise)}, {promise['figure']}"
    rows = [
        f"| {name}: {text} | {' | '.join(cells.get(each, '') for each in machines)} |"
        for (name, text), cells in found.items()
    ]
    head = f"| promise | {' | '.join(machines)} |\n|---|{'---|' * len(machines)}"
    return "\n".join([head, *rows])


def _state(promise: dict[str, Any]) -> str:
    return "kept" if promise["kept"] else "**broken**"


def _overview(entries: dict[str, Any]) -> str:
    against: dict[str, list[float]] = {}
    for entry in entries.values():
        for name, figures in entry["competitors"].items():
            if name != OURS and figures["disagreement"] is not None:  # less than the whole work
                against.setdefault(name, []).append(figures["ratio"]["median"])
    rows = [
        f"| {name} | {geometric_mean(found):.2f}x | {min(found):.2f}x | {len(found)} |"
        for name, found in against.items()
    ]
    head = "| against | geometric mean | least | entries |\n|---|---:|---:|---:|"
    return "How many times as long the others take for the same work:\n\n" + "\n".join(
        [head, *rows]
    )


def _section(name: str, entry: dict[str, Any], heading: str) -> str:
    lines = [
        f"{heading} {name}",
        "",
        f"{entry['summary']} Times of one {entry['unit']}: median (p10 to p90).",
        "",
        "| | time over ours | ms | of matmul peak | setup s |",
        "|---|---:|---:|---:|---:|",
        *(_row(who, figures) for who, figures in entry["competitors"].items()),
        "",
        *_notes(entry),
    ]
    return "\n".join(lines)


def _row(name: str, figures: dict[str, Any]) -> str:
    share = figures["peak_share"]
    cells = [
        name + (f" ({figures['what']})" if figures["what"] else ""),
        "1" if name == OURS else _spread(figures["ratio"], "x"),
        _spread(figures["ms"], ""),
        "" if share is None else f"{100 * share:.0f} %",
        f"{figures['setup_seconds']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _spread(summary: dict[str, Any], unit: str) -> str:
    median, low, high = (short(summary[key]) for key in ("median", "p10", "p90"))
    return f"{median}{unit} ({low} to {high})"


def _notes(entry: dict[str, Any]) -> list[str]:
    machine, others = entry["machine"], entry["others_cpu"]
    counts = f"{entry['rounds']} rounds of {entry['units_per_turn']} timed"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    before, after = entry["load_average"]
    notes = [
        f"{machine['cpu']}, {machine['threads']} threads of {machine['cores']} cores, matmul peak "
        f"{entry['peak_flops'] / 1e9:.0f} GFLOP/s; {counts}; load average {before:.1f} before, "
        f"{after:.1f} after"
        + ("" if others is None else f"; other programs took {100 * others:.0f} % of the cores")
        + f". {versions}; commit {machine['commit'][:12]}"
        + ("-changed" if machine["commit"].endswith("-changed") else "")
        + f", {entry['when']}."
    ]
    if entry["quick"]:
        notes.append(
            "**A quick run: it shows that the benchmark works, its figures mean nothing.**"
        )
    if others is not None and others > BUSY:
        notes.append(
            "**The machine was busy with other programs: the times are too long, the shares of the "
            "peak too high, and the ratios flatter whoever waits least for a core that is taken.**"
        )
    for name, why in entry["left_out"].items():
        notes.append(f"Without {name}: {why}.")
    for promise in entry["promises"]:
        notes.append(f"Promise: {promise['text']}: {_state(promise)} ({promise['figure']}).")
    return "\n\n".join(notes).split("\n")
