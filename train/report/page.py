"""The page around the figures: what was run, if it passed, how long it took, how to redo it."""

import importlib.resources
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from train.recipes import RECIPES
from train.report.curves import Reference
from train.report.markup import Markup, facts, flatten, join, table, tag, text
from train.report.theme import css_variables

NAMES = {
    "answer_f1": "Answer F1",
    "auroc": "AUROC",
    "bleu": "BLEU",
    "digit_fid": "digit-FID",
    "digit_fid_floor": "digit-FID of the train split",
    "divergence": "Divergence of the codes",
    "elbo": "ELBO",
    "f1": "F1",
    "grad_norm": "Gradient norm",
    "mae": "MAE",
    "mse": "MSE",
    "r2": "R²",
    "rmse": "RMSE",
    "rouge_l": "ROUGE-L",
    "span_f1": "Span F1",
}
# No script runs and nothing is fetched, whatever a name or a text may hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
PHASE_COLORS = {"setup": "muted", "compile": "violet", "train": "blue", "eval": "orange"}


class Run(NamedTuple):
    """What is known of a run; any part may be missing."""

    workdir: Path
    config: dict[str, Any]
    result: dict[str, Any]
    rows: Sequence[dict[str, Any]]

    @property
    def name(self) -> str:
        return text(self.result.get("recipe") or self.config.get("name") or self.workdir.name)

    @property
    def metric(self) -> str:
        """The quantity that decides, without its split: ``accuracy``."""
        return str(self.result.get("metric") or "").removeprefix("eval/")

    @property
    def value(self) -> Any:
        metrics = self.result.get("metrics") or {}
        return metrics.get(f"eval/{self.metric}", metrics.get(self.metric))

    @property
    def baseline(self) -> dict[str, Any]:
        return self.result.get("baseline") or {}

    @property
    def last_step(self) -> int:
        return self.rows[-1]["step"] if self.rows else 0

    @property
    def command(self) -> str:
        return self.result.get("command") or shlex.join(["python", "-m", "train", "run", self.name])

    def references(self) -> list[Reference]:
        """The threshold and the baseline as lines for the chart of the metric."""
        lines = [
            ("threshold", self.result.get("threshold"), "green", "--"),
            ("baseline", self.baseline.get("value"), "muted", ":"),
        ]
        return [
            Reference(label, value, color, dashes)
            for label, value, color, dashes in lines
            if isinstance(value, int | float)
        ]


def display_name(quantity: str) -> str:
    """``grad_norm`` as a title: "Gradient norm"."""
    words = quantity.replace("_", " ").replace("/", " · ")
    return NAMES.get(quantity, words[:1].upper() + words[1:])


def card(title: str, caption: str, body: Markup, *, wide: bool = False) -> Markup:
    """A titled figure; ``wide`` takes a whole row of the page."""
    parts = [tag("h3", title), body]
    if caption:
        parts.insert(1, tag("figcaption", caption))
    return tag("figure", *parts, class_="card wide" if wide else "card")


def section(title: str, *children: Markup, layout: str | None = None) -> Markup:
    """A part of the page with its heading.

    Args:
      title: the heading.
      children: what stands below it.
      layout: ``"grid"`` for rows of equal cards, ``"columns"`` for cards of unequal height.
    """
    body = tag("div", *children, class_=layout) if layout else join(children)
    return tag("section", tag("h2", title), body)


def header(run: Run) -> Markup:
    """The title, the badge and the three numbers that decide."""
    state, mark = _state(run.result)
    model = run.result.get("model")
    dataset = (run.config.get("data") or {}).get("name")
    about = " on ".join(text(part) for part in (model, dataset) if part)
    tiles = []
    if run.metric:
        tiles.append((f"{display_name(run.metric)}, held out", text(run.value), state.lower()))
    if (threshold := run.result.get("threshold")) is not None:
        tiles.append((f"Threshold{_relation(run)}", text(threshold), ""))
    if run.baseline:
        name = run.baseline.get("name")
        tiles.append((f"Baseline: {text(name)}", text(run.baseline.get("value")), ""))
    return tag(
        "header",
        tag("p", "Training report", class_="eyebrow"),
        tag("h1", run.name, " ", tag("span", f"{mark}{state}", class_=f"badge {state.lower()}")),
        tag("p", about, class_="about") if about else Markup(),
        tag(
            "dl",
            *(tag("div", tag("dt", name), tag("dd", value), class_=c) for name, value, c in tiles),
            class_="tiles",
        )
        if tiles
        else Markup(),
    )


def key_facts(run: Run) -> Markup:
    """Size, length and place of the run."""
    result, config = run.result, run.config
    planned = result.get("steps", config.get("steps"))
    steps = text(planned)
    if not result:
        steps = f"{run.last_step:,} of {steps}" if planned else f"{run.last_step:,}"
    pairs = [
        ("Parameters", result.get("parameters")),
        ("Steps", steps),
        ("Batch size", config.get("batch_size")),
        ("Seed", result.get("seed", config.get("seed"))),
        ("Device", result.get("device")),
        ("Parameters' SHA-256", (result.get("params_sha256") or "")[:12] or None),
    ]
    return facts((name, text(value)) for name, value in pairs if value is not None)


def timing(run: Run) -> Markup:
    """Where the time went, as a bar of shares and as numbers."""
    result = run.result
    seconds = {k: v for k, v in (result.get("seconds") or {}).items() if v}
    parts: list[Markup] = []
    if total := sum(seconds.values()):
        colors = {phase: PHASE_COLORS.get(phase, "green") for phase in seconds}
        bar = [
            tag("span", style=f"flex-grow: {value / total:.4f}; background: var(--{colors[phase]})")
            for phase, value in seconds.items()
        ]
        key = [
            tag(
                "li",
                tag("span", class_="swatch", style=f"background: var(--{colors[phase]})"),
                f"{phase} ",
                tag("b", f"{text(float(value))} s"),
                f" {value / total:.0%}",
            )
            for phase, value in seconds.items()
        ]
        parts += [tag("div", *bar, class_="bar", aria_hidden="true"), tag("ul", *key, class_="key")]
    wall = run.rows[-1]["wall_seconds"] if run.rows else 0
    rate = result.get("steps_per_second") or (run.last_step / wall if wall and not result else None)
    wait = result.get("data_wait_fraction")
    pairs = [
        ("Total", f"{text(float(total or wall))} s" if total or wall else None),
        ("Steps a second", None if rate is None else text(float(rate))),
        ("Waiting for data", None if wait is None else f"{wait:.2%} of training"),
    ]
    parts.append(facts((name, value) for name, value in pairs if value is not None))
    return tag("div", *parts, class_="card")


def reproduction(run: Run) -> Markup:
    """The command, and everything that the run depended on, folded away."""
    parts = [tag("pre", tag("code", run.command), tabindex="0", aria_label="command")]
    folds = [
        ("Configuration", ("Field", "Value"), run.config),
        ("Versions", ("Package", "Version"), run.result.get("versions")),
        ("Kernels", ("Operation", "Implementation"), run.result.get("kernels")),
        ("Cleaning of the data", ("Step", "Count"), run.result.get("cleaning")),
        ("All final metrics", ("Metric", "Value"), run.result.get("metrics")),
    ]
    for title, names, tree in folds:
        if tree:
            rows = table(names, flatten(tree), title)
            parts.append(tag("details", tag("summary", title), rows))
    return tag("div", *parts, class_="card")


def document(run: Run, *parts: Markup) -> str:
    """The whole file: no script, no reference to anything outside it."""
    css = importlib.resources.files("train.report").joinpath("page.css").read_text("utf-8")
    head = [
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", f"{run.name} · training report"),
        tag("style", Markup(css_variables() + css)),
    ]
    foot = tag("footer", "Zoo from Scratch")
    body = tag("body", header(run), tag("main", *parts), foot)
    return "<!doctype html>\n" + tag("html", tag("head", *head), "\n", body, lang="en") + "\n"


def _state(result: dict[str, Any]) -> tuple[str, str]:
    """How the run ended, in a word and a sign."""
    if not result:
        return "Unfinished", ""
    passed = result.get("passed")
    return ("Finished", "") if passed is None else ("Passed", "✓ ") if passed else ("Failed", "✗ ")


def _relation(run: Run) -> str:
    """ ": at least" or ": at most", from the recipe: a run may fail by its baseline alone."""
    row = RECIPES.get(run.name)
    return "" if row is None else ": at least" if row.direction == "max" else ": at most"
