"""The report: complete, self-contained, escaped, deterministic; and the figures in it."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from train import figures
from train.errors import UserError
from train.metric_log import MetricLog
from train.report import Section, Table, write_report
from train.report.theme import COLORS

EVIL = '<script src="https://example.org/x.js">alert("1")</script>'
VOID = {"meta", "link", "br", "hr", "img", "input"}
RESULT = {
    "recipe": "digits-convnet",
    "model": "convnet",
    "parameters": 421_642,
    "steps": 600,
    "seed": 7,
    "metrics": {"eval/accuracy": 0.9851, "eval/loss": 0.061},
    "metric": "accuracy",
    "threshold": 0.98,
    "passed": True,
    "baseline": {"name": "logistic regression", "value": 0.903},
    "seconds": {"setup": 2.5, "compile": 3.5, "train": 48.0, "eval": 2.0},
    "steps_per_second": 12.5,
    "params_sha256": "9f86d081884c7d65" + "0" * 48,
    "versions": {"jax": "0.10.2"},
    "device": "cpu (2 cores)",
    "data_wait_fraction": 0.0041,
    "kernels": {"conv": "xla"},
    "cleaning": {"duplicates": 3},
    "command": "python -m train run digits-convnet --seed 7",
}
CONFIG = {"name": "digits-convnet", "steps": 600, "seed": 7, "model": {"channels": [32, 64]}}


class Page(HTMLParser):
    """Parses a page, checks that its tags nest, and keeps what the tests ask for."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style" and data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_run(workdir: Path, *, steps: int = 600, evals: bool = True, **result) -> Path:
    with MetricLog(workdir) as log:
        for step in range(10, steps + 1, 10):
            metrics = {"train/loss": 300 / step**2, "train/accuracy": 1 - 1 / step}
            metrics |= {"train/learning_rate": 1e-3, "train/grad_norm": 1 / step}
            if evals and step % 200 == 0:
                metrics |= {"eval/loss": 2 / step, "eval/accuracy": 0.98, "eval/f1": 0.97}
            log.write(step, 0.1 * step, metrics)
    (workdir / "config.json").write_text(json.dumps(CONFIG))
    (workdir / "result.json").write_text(json.dumps(RESULT | result))
    return workdir


def task_sections() -> list[Section]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    return [
        Section("Confusion", "Rows are true.", figures.confusion_matrix_figure(np.eye(3), "abc")),
        Section("Mistakes", "The surest first.", figures.image_grid_figure(images, list("abcde"))),
        Section("Samples", "First lines.", Table(["text", "loss"], [["In the\nbeginning", 1.5]])),
    ]


@pytest.fixture(scope="module")
def full_run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(full_run) -> Page:
    return Page(write_report(full_run, task_sections()).read_text())


def test_every_part_is_there(page):
    headings = ["The run", "Learning curves", "Predictions", "Time", "Run it again"]
    for words in [*headings, "Loss", "Accuracy", "Learning rate", "Gradient norm", "Confusion"]:
        assert words in page.words
    for words in ["✓ Passed", "0.9851", "0.98", "logistic regression", "0.903", "421,642", "600"]:
        assert words in page.text
    for words in ["cpu (2 cores)", "48 s", "56 s", "12.5", "0.41% of training", RESULT["command"]]:
        assert words in page.text
    for words in ["model.channels", "32, 64", "0.10.2", "duplicates", "xla", "In the\nbeginning"]:
        assert words in page.text
    assert "threshold 0.98" in page.words and "baseline 0.903" in page.words  # in the chart


def test_every_picture_has_an_alternative_text_of_its_own(page):
    labels = [attributes["aria-label"] for attributes in page.named("svg")]
    assert len(labels) == 7 and len(set(labels)) == 7
    assert "Confusion. Rows are true." in labels
    assert all(attributes["role"] == "img" for attributes in page.named("svg"))


def test_curves_are_clipped_to_their_axes(page):
    assert page.named("clippath") and any("clip-path" in path for path in page.named("path"))


def test_nothing_is_loaded_from_outside(full_run, page):
    text = (full_run / "report.html").read_text()
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert not page.named("script") and not page.named("link")
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))


def test_ids_are_unique_and_references_resolve(full_run, page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    text = (full_run / "report.html").read_text()
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', text)) <= set(ids)


def test_equal_runs_give_equal_bytes_whatever_the_settings_of_the_user(full_run, page, tmp_path):
    import matplotlib

    again = make_run(tmp_path)
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path"}):
        write_report(again, task_sections())
    assert (again / "report.html").read_bytes() == (full_run / "report.html").read_bytes()


def test_text_from_outside_is_escaped(tmp_path):
    make_run(
        tmp_path, steps=0, recipe=EVIL, model=EVIL, device=EVIL, command=EVIL, versions={EVIL: EVIL}
    )
    sections = [
        Section(EVIL, EVIL, figures.confusion_matrix_figure(np.eye(2), [EVIL, "$x_{$"])),
        Section("rows", "", Table([EVIL], [[EVIL]])),
    ]
    path = write_report(tmp_path, sections)
    page = Page(path.read_text())
    assert not page.named("script") and "<script" not in path.read_text()
    assert EVIL in page.text and "$x_{$" in page.text


@pytest.mark.parametrize(
    ("recipe", "value", "passed", "state", "relation"),
    [
        ("digits-convnet", 0.5, False, "✗ Failed", "Threshold: at least"),
        ("digits-convnet", 0.99, True, "✓ Passed", "Threshold: at least"),
        ("digits-convnet", 0.98, True, "✓ Passed", "Threshold: at least"),
        # The threshold is met and the baseline is not beaten.
        ("digits-convnet", 0.99, False, "✗ Failed", "Threshold: at least"),
        ("bible-gpt", 0.5, False, "✗ Failed", "Threshold: at most"),
        ("somebody's own", 0.5, None, "Finished", "Threshold"),
    ],
)
def test_the_badge_tells_how_the_run_ended(tmp_path, recipe, value, passed, state, relation):
    metrics = {"eval/accuracy": value}
    make_run(tmp_path, steps=0, recipe=recipe, metrics=metrics, passed=passed)
    page = Page(write_report(tmp_path).read_text())
    assert state in page.words and relation in page.words


def test_a_stopped_run_shows_how_far_it_came(tmp_path):
    make_run(tmp_path, steps=200, evals=False)
    (tmp_path / "result.json").unlink()
    page = Page(write_report(tmp_path).read_text())
    assert "Unfinished" in page.words and "200 of 600" in page.words
    assert {"Loss", "Accuracy"} <= set(page.words) and "Predictions" not in page.words
    assert "python -m train run digits-convnet" in page.words


def test_a_result_without_optional_keys_and_without_baseline(tmp_path):
    make_run(tmp_path, steps=0)
    (tmp_path / "result.json").write_text('{"recipe": "x", "passed": true, "baseline": null}')
    assert "✓ Passed" in Page(write_report(tmp_path).read_text()).words


def test_an_empty_folder_gives_a_page(tmp_path):
    page = Page(write_report(tmp_path).read_text())
    assert "Nothing was logged yet." in page.words and tmp_path.name in page.words


def test_a_value_that_is_not_finite_is_marked(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(1, 0.1, {"train/loss": 0.5})
        log.write(2, 0.2, {"train/loss": float("nan"), "train/grad_norm": float("inf")})
    page = Page(write_report(tmp_path).read_text())
    assert "train not finite" in page.words and "not finite" in page.words


def test_long_curves_stay_small(tmp_path):
    row = '{"step": %d, "wall_seconds": 0.0, "train/loss": %f}\n'
    rows = [row % (step, 1.5 + np.sin(step)) for step in range(1, 20_001)]
    (tmp_path / "metrics.jsonl").write_text("".join(rows))
    assert write_report(tmp_path).stat().st_size < 60_000


@pytest.mark.parametrize(("name", "text"), [("result.json", "{"), ("config.json", "[]")])
def test_a_damaged_file_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        write_report(tmp_path)


def test_a_plain_figure_keeps_its_colours_on_a_white_plate(tmp_path):
    from matplotlib.figure import Figure

    plain = Figure(figsize=(3, 2))
    plain.add_subplot().plot([0, 1], [1, 0], color=COLORS["blue"][0])
    text = write_report(tmp_path, [Section("Plain", "By hand.", plain)]).read_text()
    assert 'class="chart plate"' in text and f"stroke: {COLORS['blue'][0]}" in text


def test_a_table_with_a_wrong_row_is_refused():
    with pytest.raises(ValueError, match=r"has 1 cells, the header 2"):
        Table(["a", "b"], [["x"]])


def _contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2.1 between two colours."""

    def luminance(color: str) -> float:
        parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("name", sorted(set(COLORS) - {"line", "surface", "page"}))
def test_text_colours_have_contrast_on_both_grounds(name, theme):
    for ground in ("surface", "page"):
        assert _contrast(COLORS[name][theme], COLORS[ground][theme]) >= 4.5


def texts(figure) -> list[str]:
    """Every word of a figure that is not a number on an axis."""
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts] + [axes.get_title()]
        found += [label.get_text() for label in axes.get_yticklabels()]
    return found


@pytest.mark.parametrize("classes", [1, 2, 12, 13, 100])
def test_confusion_matrices_of_any_size(classes):
    matrix = np.arange(classes**2).reshape(classes, classes)
    names = [f"class {i}" for i in range(classes)]
    figure = figures.confusion_matrix_figure(matrix, names)
    labels = texts(figure)
    assert "class 0" in labels
    assert (f"{classes**2 - 1:,}" in labels) == (classes <= figures.MAX_COUNTED_CLASSES)
    assert sum(label.startswith("class") for label in labels) <= figures.MAX_NAMED_CLASSES
    with pytest.raises(ValueError, match="one a name"):
        figures.confusion_matrix_figure(matrix, [*names, "more"])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((7, 4, 4, 1), np.uint8),
        np.zeros((2, 4, 4), np.float32),
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((3, 4, 4, 3), np.uint8),
    ],
)
def test_image_grids_of_any_kind(images):
    titles = [f"a long name that needs several lines {i}" for i in range(len(images))]
    figure = figures.image_grid_figure(images, titles)
    assert len(figure.axes) == len(images)
    assert figure.axes[-1].get_title().replace("\n", " ") == titles[-1]
    with pytest.raises(ValueError, match="expected one a picture"):
        figures.image_grid_figure(images, [*titles, "more"])


def test_no_mistakes_is_said():
    empty = np.zeros((0, 28, 28, 1), np.uint8)
    assert texts(figures.image_grid_figure(empty, [])) == ["none to show"]


@pytest.mark.parametrize("num", [1, 50, figures.MAX_VECTOR_POINTS + 1])
def test_residuals_of_any_number(num):
    target = np.linspace(0, 1, num)
    points = figures.residual_figure(target + 0.5, target).axes[0].collections[0]
    np.testing.assert_allclose(np.asarray(points.get_offsets())[:, 1], 0.5)
    assert points.get_rasterized() == (num > figures.MAX_VECTOR_POINTS)
    with pytest.raises(ValueError, match=r"want \[B\]"):
        figures.residual_figure(target[:, None], target)


def test_roc_tells_its_area():
    figure = figures.roc_figure(scores=[0.1, 0.4, 0.35, 0.8], labels=[0, 0, 1, 1])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "area under the curve 0.7500"
    with pytest.raises(ValueError, match="every target is 1"):
        figures.roc_figure([0.1, 0.2], [1, 1])


def test_weights_come_in_the_order_of_their_size():
    figure = figures.weights_figure(["a", "b", "c"], [0.1, -3.0, 2.0], most=2)
    assert texts(figure) == ["", "b", "c"]
    assert figure.axes[0].get_xlabel() == "weight, 2 largest of 3"
    with pytest.raises(ValueError, match="one a name"):
        figures.weights_figure(["a"], [1.0, 2.0])


def test_a_figure_saves_on_its_own(tmp_path):
    from PIL import Image

    figures.image_grid_figure(np.zeros((1, 4, 4)), ["x"]).savefig(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_importing_the_report_does_not_import_matplotlib():
    code = "import sys, train.report, train.figures; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_attention_is_as_opaque_as_its_weight():
    weights = np.tril(np.ones((3, 4, 4))) / np.arange(1, 5)[:, None]
    figure = figures.attention_figure(weights, ["In", " ", "the", "\n"])
    assert [axes.get_title() for axes in figure.axes] == ["head 1", "head 2", "head 3"]
    drawn = figure.axes[0].images[0].get_array()
    assert drawn is not None
    assert np.allclose(drawn[..., 3], weights[0])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["In", "␣", "the", "␣"]
    with pytest.raises(ValueError, match="expected"):
        figures.attention_figure(weights, ["In"])
