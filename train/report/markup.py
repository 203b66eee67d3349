"""HTML that is escaped by construction: only :class:`Markup` passes as it is, text is escaped."""

import html
import numbers
from collections.abc import Iterable, Sequence
from typing import Any


class Markup(str):
    """HTML that this module made, or that is trusted to be well formed."""


def tag(name: str, *children: str, **attributes: str | None) -> Markup:
    """``<name attribute="...">children</name>``; ``class_`` is the attribute ``class``."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{pairs}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """Children one after the other, text escaped."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(c) for c in children))


def text(value: Any) -> str:
    """A value as a person writes it: 1,234,567, 0.9852, yes, or the text itself."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if isinstance(value, numbers.Real):
        value = float(value)
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value)) or "none"
    return "none" if value is None else str(value)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> Markup:
    """A table that scrolls sideways on a narrow screen; numbers are set to the right.

    Args:
      header: one name a column.
      rows: cells of any value, as many as names.
      caption: what a screen reader announces.
    """

    def cell(value: Any) -> Markup:
        numeric = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return tag("td", text(value), class_="number" if numeric else None)

    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in header)))
    body = tag("tbody", *(tag("tr", *map(cell, row)) for row in rows))
    hidden = tag("caption", caption, class_="unseen")
    inner = tag("table", hidden, head, body)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and values as a list of descriptions."""
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs),
        class_="facts",
    )


def flatten(tree: Any, where: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested dicts with their dotted paths: ``[("model.dim", 4), ...]``."""
    if not isinstance(tree, dict):
        return [(where, tree)]
    return [
        leaf for key, value in tree.items() for leaf in flatten(value, f"{where}.{key}".strip("."))
    ]
