"""Runs the Python of a page and compares what it prints with what the page shows.

    python docs/snippets.py tour.md      # writes what the snippets print into the page

All ```python blocks of a page run in order, in one namespace, in an empty folder. A ```text block
right after one shows what it printed. Numbers there may differ in their last digit, since another
machine adds in another order; a comment before the block allows more: <!-- within 20 % -->.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
WITHIN = re.compile(r"\s*(?:<!-- within (?P<percent>\d+) % -->)?\s*")
NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:e[+-]\d+)?(?!\w)")


@dataclass(frozen=True)
class Snippet:
    """One block of code, and the output that the page shows for it."""

    code: str
    line: int  # of the code's first line in the page
    shown: str | None  # None where the page shows no output
    span: tuple[int, int]  # where the output stands in the text of the page
    tolerance: float  # relative, for the numbers of the output


def snippets(text: str) -> list[Snippet]:
    """The Python blocks of a page, in order."""
    fences = list(FENCE.finditer(text))
    found = []
    for fence, after in zip_longest(fences, fences[1:]):
        if fence["kind"] != "python":
            continue
        line = text.count("\n", 0, fence.start("body")) + 1
        between = WITHIN.fullmatch(text, fence.end(), after.start()) if after else None
        if after is None or after["kind"] != "text" or between is None:
            found.append(Snippet(fence["body"], line, None, (0, 0), 0.0))
        else:
            tolerance = int(between["percent"] or 0) / 100
            found.append(Snippet(fence["body"], line, after["body"], after.span("body"), tolerance))
    return found


def run(page: Path) -> tuple[dict[str, Any], list[str]]:
    """The namespace after the last snippet of a page, and what each of them printed.

    A traceback names the page and its line. Files are written to the current folder.
    """
    namespace: dict[str, Any] = {"__name__": page.stem}
    printed = []
    for snippet in snippets(page.read_text()):
        said = io.StringIO()
        code = compile("\n" * (snippet.line - 1) + snippet.code, str(page), "exec")
        with contextlib.redirect_stdout(said):
            exec(code, namespace)
        printed.append(said.getvalue())
    return namespace, printed


def agree(shown: str, printed: str, tolerance: float = 0.0) -> bool:
    """Whether an output is the one shown: words equal, numbers equal but for rounding."""
    if _words(shown) != _words(printed):
        return False
    a, b = (NUMBER.findall(text) for text in (shown, printed))
    return len(a) == len(b) and all(map(partial(_near, tolerance), a, b))


def _near(tolerance: float, shown: str, printed: str) -> bool:
    a, b = (float(number.replace(",", "")) for number in (shown, printed))
    return abs(a - b) <= max(_last_digit(shown), tolerance * abs(a)) * (1 + 1e-9)


def _words(text: str) -> list[str]:
    return NUMBER.sub(" # ", text).split()


def _last_digit(number: str) -> float:
    """The worth of one unit in the last digit shown; 0 for a whole number, which must be equal."""
    digits, _, exponent = number.partition("e")
    _, point, decimals = digits.partition(".")
    return 10.0 ** (int(exponent or 0) - len(decimals)) if point else 0.0


def refresh(page: Path) -> None:
    """Writes what the snippets of a page print into the page, where it no longer agrees."""
    text = page.read_text()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _, outputs = run(page)
    for snippet, printed in reversed(list(zip(snippets(text), outputs, strict=True))):
        if snippet.shown is not None and not agree(snippet.shown, printed, snippet.tolerance):
            start, end = snippet.span
            lines = [line.rstrip() for line in printed.splitlines()]
            text = text[:start] + "\n".join(lines) + "\n" + text[end:]
    page.write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for name in sys.argv[1:]:
        refresh(Path(__file__).resolve().parent / name)
