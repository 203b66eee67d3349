"""Shows the code that pages speak of, with its line numbers, while the site is built.

A page links to a file of the repository as it lies there, and quotes the line it means:

    [`y = jnp.tensordot(x, kernel, 1)`](../../zoo/functional/dense.py)

The site gets a page for every such file; a link to the quoted line says its number. Since nobody
writes that number down, it is right after every edit; a quotation that does not stand in the file
exactly once is an error. A link whose text is no code leads to the whole file.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[(?P<text>`+[^`]+`+|[^\]`]+)\]\((?P<target>(?:\.\./)+[\w/]+\.py)\)")


def target_of(src_uri: str, link: str) -> str:
    """The path in the repository that a link on the page docs/`src_uri` leads to."""
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(src_uri), link))


def line_of(fragment: str, path: str) -> int:
    """The number of the line of a file where a fragment of code begins.

    A fragment may run over several lines; any white space matches any other.

    Raises:
        ValueError: the file does not exist, or the fragment does not stand in it exactly once.
    """
    file = ROOT / path
    if not file.is_file():
        raise ValueError(f"{path} does not exist")
    text = file.read_text()
    found = list(re.finditer(r"\s+".join(map(re.escape, fragment.split())), text))
    if len(found) != 1:
        raise ValueError(f"{fragment!r} stands in {path} {len(found)} times, not once")
    return text.count("\n", 0, found[0].start()) + 1


def quoted(text: str, path: str) -> str | None:
    """The line of code that a link's text quotes; None where it names the file or says a word."""
    code = text.strip("`")
    return code if text.startswith("`") and code != path else None


def on_files(files: Any, *, config: Any) -> Any:
    """MkDocs calls this with the files of the site: those that pages link to are added."""
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import File, InclusionLevel  # late: the tests do without MkDocs

    paths = {
        target_of(file.src_uri, match["target"])
        for file in files.documentation_pages()
        for match in LINK.finditer(Path(file.abs_src_path).read_text())
    }
    for path in sorted(paths):
        if not (ROOT / path).is_file():
            raise PluginError(f"a page links to {path}, which does not exist")
        code = (ROOT / path).read_text()
        content = (
            "---\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n"
            f'# {path}\n\n``````python linenums="1"\n{code}``````\n'
        )
        inclusion = InclusionLevel.NOT_IN_NAV
        files.append(
            File.generated(config, f"source/{path}.md", content=content, inclusion=inclusion)
        )
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """MkDocs calls this with the text of each page."""
    from mkdocs.exceptions import PluginError

    src_uri = page.file.src_uri
    if src_uri.startswith("source/"):
        return markdown
    depth = "../" * src_uri.count("/")

    def replace(match: re.Match[str]) -> str:
        path = target_of(src_uri, match["target"])
        url = f"{depth}source/{path}"
        fragment = quoted(match["text"], path)
        if fragment is None:
            return f"[{match['text']}]({url}.md)"
        try:
            line = line_of(fragment, path)
        except ValueError as error:
            raise PluginError(f"{src_uri}: {error}") from error
        # Written as HTML: MkDocs does not know the anchors of code lines and would warn.
        where = f'<a href="{url}.html#__codelineno-0-{line}">{path}, line {line}</a>'
        return f"{match['text']} <small>{where}</small>"

    return LINK.sub(replace, markdown)
