"""Colours and figures that fit a light and a dark page, without pyplot and its global state.

A figure is drawn in the light colours. :func:`to_svg` turns each of them into a CSS variable, so
the same inline SVG follows the reader's preference, and its text stays text that can be searched.
"""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib takes a second to import, and only the end of a run needs it
    from matplotlib.figure import Figure

# name: (light, dark). Text colours have a contrast of at least 4.5 against surface and page.
COLORS = {
    "ink": ("#1c2128", "#e6edf3"),
    "muted": ("#57606a", "#9aa4af"),
    "line": ("#d8dee4", "#343b44"),
    "surface": ("#fefefe", "#171c23"),
    "page": ("#f5f6f8", "#0d1117"),
    "blue": ("#2458d3", "#79aaff"),
    "orange": ("#b35309", "#f0a15a"),
    "green": ("#18753a", "#56c271"),
    "red": ("#c0262d", "#ff8079"),
    "violet": ("#7746b8", "#bf9bf5"),
}
LIGHT = {name: light for name, (light, _) in COLORS.items()}
THEMED = "themed"  # the gid of figures that were drawn in LIGHT

STYLE: dict[Any, Any] = {
    "axes.edgecolor": LIGHT["muted"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "font.size": 8.5,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.labelcolor": LIGHT["ink"],
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a class may be called "$"
    "xtick.color": LIGHT["muted"],
    "xtick.major.size": 3,
    "xtick.major.width": 0.7,
    "ytick.color": LIGHT["muted"],
    "ytick.major.size": 0,
}
SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "zoo-from-scratch",
    "svg.image_inline": True,
}


@contextmanager
def drawing(width: float, height: float) -> Iterator["Figure"]:
    """A new figure of so many inches; inside the block everything is drawn in the house style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_house_style()):
        figure = Figure(figsize=(width, height), dpi=144, layout="constrained")
        figure.set_gid(THEMED)
        yield figure


def _house_style() -> dict[Any, Any]:
    """All settings, so that a user's matplotlibrc changes nothing: equal runs give equal bytes."""
    import matplotlib

    default = {k: v for k, v in matplotlib.rcParamsDefault.items() if "backend" not in k}
    return {**default, **STYLE}


def to_svg(figure: "Figure", *, label: str, prefix: str) -> str:
    """The figure as inline SVG with deterministic bytes.

    Figures that were not made by :func:`drawing` keep their colours, on a white plate.

    Args:
      label: what a screen reader says instead of the picture.
      prefix: put before every id, because several pictures share one page.
    """
    import matplotlib

    themed = figure.get_gid() == THEMED
    buffer = io.StringIO()
    with matplotlib.rc_context((_house_style() if themed else {}) | SVG_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=themed)
    svg = ET.fromstring(buffer.getvalue())
    for element in svg.iter():
        _clean(element, themed, prefix)
    # A creator's note, and definitions among which a style sheet would apply to the whole page.
    for part in [part for part in svg if part.tag == "metadata" or part.find("style") is not None]:
        svg.remove(part)
    width = figure.get_figwidth() * 96  # CSS pixels at natural size
    svg.attrib = {
        "viewBox": svg.attrib["viewBox"],
        "class": "chart" if themed else "chart plate",
        "style": f"max-width: {1.3 * width:.0f}px",
        "role": "img",
        "aria-label": label,
    }
    return ET.tostring(svg, encoding="unicode")


def css_variables() -> str:
    """The palette as CSS: light, dark where the reader prefers it, light again on paper."""

    def rule(selector: str, index: int) -> str:
        pairs = "; ".join(f"--{name}: {both[index]}" for name, both in COLORS.items())
        return f"{selector} {{ {pairs} }}"

    return (
        f"{rule(':root, .plate', 0)}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ {rule(':root', 1)} }}\n"
    )


_VARIABLES = {light: f"var(--{name})" for name, light in LIGHT.items()}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def _clean(element: ET.Element, themed: bool, prefix: str) -> None:
    """One element without namespaces, generated ids and fixed fonts, in the page's colours."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    if element.tag == "g":
        attributes.pop("id", None)  # nothing refers to groups
    for name, value in attributes.items():
        if name == "id":
            value = prefix + value
        elif name == "href":
            value = f"#{prefix}{value[1:]}" if value[0] == "#" else "".join(value.split())
        elif name == "style":
            value = re.sub(r"font-family:[^;]*;? ?", "", value)
            if themed:
                value = re.sub(
                    r"#[0-9a-f]{6}", lambda m: _VARIABLES.get(m.group(), m.group()), value
                )
        elif name == "d":
            value = " ".join(value.split())
        attributes[name] = _REFERENCE.sub(rf"url(#{prefix}\1)", value)
    element.attrib = attributes
    element.tail = None
    if element.text and not element.text.strip():
        element.text = None
