"""Turns the formulas of the pages into MathML while the site is built, so that reading them needs
neither a network nor a script: every current browser draws MathML by itself.

Pages write `$x$` or `$$x$$`; `pymdownx.arithmatex` marks them and :func:`on_page_content` renders.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</\1>', flags=re.DOTALL
)
# The converter prints what it does not know as text: a command, or the & of an unknown environment.
_UNKNOWN = re.compile(r"\\[A-Za-z]+|>&<")


def render(latex: str, *, block: bool) -> str:
    """One formula as a MathML element.

    Raises:
        ValueError: the formula has a command that the converter does not know, or does not parse.
    """
    try:
        mathml = convert(latex, display="block" if block else "inline")
    except Exception as error:  # the converter has a class of its own for each mistake
        raise ValueError(f"{type(error).__name__} {error} in ${latex}$") from error
    if unknown := _UNKNOWN.search(mathml):
        what = (
            f"unknown command {unknown[0]}" if unknown[0] != ">&<" else "& outside align or cases"
        )
        raise ValueError(f"{what} in ${latex}$")
    if not block:
        return mathml
    return f'<div style="overflow: auto hidden; padding: .3em 0">{mathml}</div>'


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """MkDocs calls this with the HTML of each page."""

    def replace(match: re.Match[str]) -> str:
        try:
            return render(html.unescape(match["latex"]).strip(), block=match[1] == "div")
        except ValueError as error:
            raise PluginError(f"{page.file.src_uri}: {error}") from error

    return _FORMULA.sub(replace, content)
