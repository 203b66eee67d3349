"""``report.html``: one self-contained page that tells what a run learnt, how well and how fast.

It is made of ``config.json``, ``metrics.jsonl`` and ``result.json`` of the run folder and of the
sections that the task adds. The same files and figures give the same bytes; what is missing (a run
that was stopped has no result) is left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from train import metric_log
from train.errors import UserError
from train.report import page
from train.report.curves import curve_figure, group
from train.report.markup import Markup, table, tag
from train.report.theme import to_svg

if TYPE_CHECKING:
    import matplotlib.figure

FILE = "report.html"
LEADING = (
    "loss",
    "generator_loss",
    "learning_rate",
    "grad_norm",
)  # shown first, the metric after the loss


@dataclass(frozen=True)
class Table:
    """Rows of a section where a picture would say less."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]  # text and numbers, as many as the header has names

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"row {row!r} has {len(row)} cells, the header {len(self.header)}")


@dataclass(frozen=True)
class Section:
    """What a task adds to the report."""

    title: str
    caption: str  # one or two sentences; read out instead of the picture
    figure: Union["matplotlib.figure.Figure", Table]


def write_report(workdir: Path, sections: Sequence[Section] = ()) -> Path:
    """Writes ``report.html`` into a run folder, whole or not at all, and returns its path.

    Raises:
      UserError: a file of the run folder is damaged.
    """
    run = page.Run(
        workdir,
        _read(workdir / "config.json"),
        _read(workdir / "result.json"),
        metric_log.read(workdir),
    )
    parts = [page.section("The run", tag("div", page.key_facts(run), class_="card"))]
    parts += _curves(run)
    if sections:
        cards = [_card(section, f"s{i}-") for i, section in enumerate(sections)]
        parts.append(page.section("Predictions", *cards, layout="columns"))
    parts.append(page.section("Time", page.timing(run)))
    parts.append(page.section("Run it again", page.reproduction(run)))
    path = workdir / FILE
    metric_log.replace_file(path, page.document(run, *parts))
    return path


def _curves(run: page.Run) -> list[Markup]:
    curves = group(run.rows)
    leading = [name for name in (LEADING[0], run.metric, *LEADING[1:]) if name in curves]
    if not run.metric:  # which quantity decides is told by the result: until then, show all
        leading += [name for name in curves if name not in leading]
    others = [name for name in curves if name not in leading]

    def chart(index: int, quantity: str) -> Markup:
        title = page.display_name(quantity)
        references = run.references() if quantity == run.metric else []
        figure = curve_figure(curves[quantity], references)
        ends = ", ".join(f"{split} {c.values[-1]:.4g}" for split, c in curves[quantity].items())
        label = f"{title} over {run.last_step} steps; last values: {ends}."
        return page.card(title, "", Markup(to_svg(figure, label=label, prefix=f"c{index}-")))

    cards = [chart(index, name) for index, name in enumerate(leading + others)]
    if not cards:
        return [page.section("Learning curves", tag("p", "Nothing was logged yet."))]
    found = [page.section("Learning curves", *cards[: len(leading)], layout="grid")]
    if others:
        rest = tag("div", *cards[len(leading) :], class_="grid")
        names = ", ".join(page.display_name(name) for name in others)
        found.append(tag("details", tag("summary", f"More curves: {names}"), rest, class_="more"))
    return found


def _card(section: Section, prefix: str) -> Markup:
    if isinstance(section.figure, Table):
        body = table(section.figure.header, section.figure.rows, section.title)
        return page.card(section.title, section.caption, body, wide=True)
    label = f"{section.title}. {section.caption}"
    svg = to_svg(section.figure, label=label, prefix=prefix)
    return page.card(section.title, section.caption, Markup(svg))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); run again with --resume never") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object; run again with --resume never")
    return found
