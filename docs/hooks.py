"""Two things the site needs so that it reads well without a network and without a code host.

Formulas: pages write `$x$` or `$$x$$`, `pymdownx.arithmatex` marks them, :func:`on_page_content`
turns them into MathML, which every current browser draws by itself, with no script.

Code: pages link to files of the repository by relative paths, so that they also work where the
repository is browsed. :func:`on_files` makes a page of each such file, and :func:`on_page_markdown`
points the links there.
"""

import html
import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</\1>', flags=re.DOTALL
)
# The converter prints what it does not know as text: a command, or the & of an unknown environment.
_UNKNOWN = re.compile(r"\\[A-Za-z]+|>&<")
_LINK = re.compile(r"\]\((?P<path>\.\./[\w./-]+\.py)\)")


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


def linked(page: str, link: str) -> str | None:
    """The repository path that a page's link leads to; None when it stays inside the pages."""
    path = os.path.normpath(PurePosixPath("docs", page).parent / link)
    return None if path.startswith("docs/") else path


def on_files(files: Files, *, config: Any) -> Files:
    """MkDocs calls this with everything it found; adds a page for each file that pages link to.

    Raises:
        PluginError: a link leads to a file that does not exist.
    """
    wanted: dict[str, str] = {}
    for page in files.documentation_pages():
        for match in _LINK.finditer(page.content_string):
            if path := linked(page.src_uri, match["path"]):
                wanted[path] = page.src_uri
    for path, page in sorted(wanted.items()):
        if not (ROOT / path).is_file():
            raise PluginError(f"{page} links to {path}, which does not exist")
        code = (ROOT / path).read_text()
        content = (
            f"---\ntitle: {path}\nhide: [toc]\nsearch: {{exclude: true}}\n---\n\n# `{path}`\n\n"
            f'~~~~ {{.python linenums="1"}}\n{code}\n~~~~\n'
        )
        files.append(File.generated(config, f"source/{path}.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """MkDocs calls this with the text of each page; links to code lead to its page in the site."""
    here = page.file.src_uri

    def replace(match: re.Match[str]) -> str:
        path = linked(here, match["path"])
        if path is None:
            return match[0]
        return f"]({os.path.relpath(f'source/{path}.md', PurePosixPath(here).parent)})"

    return markdown if here.startswith("source/") else _LINK.sub(replace, markdown)
