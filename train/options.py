"""Command lines to dataclasses, through tyro; what cannot be parsed becomes one clear line."""

import contextlib
import difflib
import io
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar
from unittest import mock

import tyro

from train.errors import UserError

Options = TypeVar("Options")


def nearest(kind: str, given: str, valid: Iterable[str]) -> str:
    """``no KIND 'given'; did you mean 'x'?``, or all valid names where none is near."""
    valid = list(valid)
    near = difflib.get_close_matches(given, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(valid)}"
    return f"no {kind} {given!r}; {hint}"


def parse(
    kind: type[Options], prog: str, args: Sequence[str], default: Options | None = None
) -> Options:
    """The options of one verb.

    Raises:
      UserError: an unknown flag, with the nearest one, or a value that its field refuses.
      SystemExit: after ``--help``, with code 0.
    """
    said = io.StringIO()
    keywords: dict[str, Any] = {} if default is None else {"default": default}
    # A wide page keeps tyro from breaking a value in the middle.
    wide = mock.patch.dict(os.environ, {"COLUMNS": "400"})
    wanted_help = any(arg in ("-h", "--help") for arg in args)
    try:
        if wanted_help:
            return tyro.cli(kind, prog=prog, args=args, **keywords)
        with wide, contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=prog, args=args, **keywords)
    except SystemExit as ending:
        if not ending.code:
            raise
    except ValueError as refused:  # by the outermost dataclass, for which tyro has no name
        raise UserError(f"{refused} (see `{prog} --help`)") from refused
    raise UserError(f"{_reason(said.getvalue())} (see `{prog} --help`)")


def _reason(box: str) -> str:
    """What tyro says inside its box, on one line: the reason, and the flag it thinks was meant."""
    # Where the terminal has no box-drawing characters, tyro draws with spaces and dashes.
    lines = [line.strip("│╭╮╰╯─ \t") for line in box.splitlines()]
    text, near = [], []
    for line in [line for line in lines[1:] if line.strip("-")]:
        if re.match(r"(Perhaps you meant|Argument helptext|For full helptext)", line):
            near = [flag for flag in re.findall(r"^[│\s]+(--\w[\w.-]*)", box, re.MULTILINE)][:1]
            break
        text.append(line)
    reason = " ".join(text).replace("recipe.", "").replace("self.", "").rstrip(".")
    if near and "nrecognized" in reason:
        reason += f"; did you mean {near[0]}?"
    return reason[:1].lower() + reason[1:]
