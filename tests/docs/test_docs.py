"""The documentation says what is so: its code runs, its quotations stand, its tables are fresh."""

import re
import shlex
from pathlib import Path

import pytest

from docs import generate, snippets, source
from tests.conftest import ROOT
from train import cli, options, targets
from train.plan import command as plan
from train.recipes import RECIPES

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)\)")
COMMAND = re.compile(r"^\$ (?:\.venv/bin/)?python -m train (?P<arguments>.*?)(?:\s+#.*)?$", re.M)


def named(pages: list[Path]) -> list:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages]


RUNNING = [page for page in PAGES if snippets.snippets(page.read_text())]


@pytest.mark.parametrize("page", named(RUNNING))
def test_snippets_print_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables, printed = snippets.run(page)
    for snippet, text in zip(snippets.snippets(page.read_text()), printed, strict=True):
        if snippet.shown is None:
            assert not text, f"line {snippet.line} prints something that the page does not show"
        else:
            assert snippets.agree(snippet.shown, text, snippet.tolerance), (
                f"{page.name}, snippet at line {snippet.line}: the page shows\n{snippet.shown}\n"
                f"it printed\n{text}\n(python docs/snippets.py writes the page again)"
            )
    if page.name == "tour.md":
        check_figures(variables, tmp_path)


def check_figures(tour, folder):
    """The pictures of the tour are still those that its variables give."""
    from docs import figures

    figures.draw(tour, folder)
    words = re.compile(r"<text[^>]*>([^<]*)</text>")
    for name in figures.FIGURES:
        kept, drawn = ((place / name).read_text() for place in (figures.ASSETS, folder))
        kept, drawn = ("\n".join(words.findall(text)).replace("−", "-") for text in (kept, drawn))
        assert snippets.agree(kept, drawn), f"{name} is out of date: python docs/figures.py tour"


@pytest.mark.parametrize("page", named(generate.pages()))
def test_generated_parts_are_fresh(page):
    assert generate.generated(page) == page.read_text(), "run python docs/generate.py"


def test_results_that_are_missing_are_said_to_be(tmp_path):
    context = generate.Context(ROOT / "README.md", tmp_path)
    for text in (generate.results(context), generate.result_details(context)):
        assert text.lower().count(generate.NOT_RECORDED) == len(RECIPES)


@pytest.mark.parametrize(
    ("shown", "printed", "tolerance", "equal"),
    [
        ("loss 0.123", "loss 0.124", 0, True),  # one unit in the last digit
        ("loss 0.123", "loss 0.125", 0, False),
        ("step 40", "step 41", 0, False),
        ("step 40", "step 41", 0.1, True),
        ("1,234 bytes", "1,299 bytes", 0.1, True),
        ("1,234 bytes", "2,234 bytes", 0.1, False),
        ("True", "False", 1, False),
        ("[1 2]", "[1 2 3]", 1, False),
        ("-1.00e-3", "-1.01e-3", 0, True),
        ("a  b", "a b\n", 0, True),
    ],
)
def test_outputs_agree_up_to_rounding(shown, printed, tolerance, equal):
    assert snippets.agree(shown, printed, tolerance) is equal


def quotations() -> list:
    found = []
    for page in PAGES:
        if not page.is_relative_to(ROOT / "docs"):
            continue
        src_uri = page.relative_to(ROOT / "docs").as_posix()
        for match in source.LINK.finditer(page.read_text()):
            path = source.target_of(src_uri, match["target"])
            found.append(pytest.param(match["text"], path, id=f"{src_uri}-{path}-{len(found)}"))
    return found


@pytest.mark.parametrize(("text", "path"), quotations())
def test_quoted_code_stands_where_the_page_says(text, path):
    assert (ROOT / path).is_file()
    if fragment := source.quoted(text, path):
        assert source.line_of(fragment, path) > 0


@pytest.mark.parametrize("name", sorted(generate.MODEL_PAGES))
def test_every_term_of_a_model_has_its_line(name):
    """The table of a model's page: a formula or words on the left, quoted code on the right."""
    text = (ROOT / f"docs/models/{name}.md").read_text()
    rows = text.partition("## Where each term stands")[2].partition("\n## ")[0]
    terms = [row for row in rows.splitlines() if row.startswith("|")][2:]
    assert len(terms) >= 6
    for row in terms:
        assert source.LINK.search(row), row


@pytest.mark.parametrize("fragment", ["no such code", "import"])
def test_a_quotation_must_stand_there_once(fragment):
    with pytest.raises(ValueError, match="not once"):
        source.line_of(fragment, "train/cli.py")


@pytest.mark.parametrize("page", named(PAGES))
def test_links_lead_somewhere(page):
    text = CODE.sub("", page.read_text())
    for match in LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"https?://", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = {
                re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads
            }
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", named(PAGES))
def test_pages_load_nothing_from_a_network(page):
    """A link may lead out; a picture, a script or a style sheet may not come from there."""
    text = CODE.sub("", page.read_text())
    assert not re.search(r"!\[[^\]]*\]\(\s*(https?:)?//", text)
    assert not re.search(r"<(script|img|iframe|link|video|object)\b", text)


def commands() -> list:
    return [
        pytest.param(match["arguments"], id=f"{page.stem}-{match['arguments']}")
        for page in PAGES
        for match in COMMAND.finditer(page.read_text())
    ]


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line):
    """Each is parsed as the command line would; `list` and `--help` are generated, so they ran."""
    verb, *arguments = shlex.split(line)
    if verb.startswith("-") or "--help" in arguments or verb == "list":
        return
    assert verb in cli.VERBS
    prog = f"python -m train {verb}"
    if verb == "run":
        name, *rest = arguments
        if name == "DATA-NAME":  # a recipe that the reader is about to write
            return
        kind, default = cli.run_options(name)
        options.parse(kind, prog, [cli._alias(argument) for argument in rest], default)
    elif verb == "plan":
        name, *rest = arguments
        assert targets.target(plan.read(name, rest)[0].target)
    else:
        kinds = {"eval": cli.Eval, "sample": cli.sample_options(), "export": cli.Export}
        kind = kinds[verb]
        options.parse(kind, prog, arguments)


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"^\$ make ([\w-]+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"
