"""Writes the parts of README.md and of the pages that no hand should write.

    python docs/generate.py                       # after a new result, recipe, option or model
    python docs/generate.py --results DIR         # with the result files of another folder

Such a part stands between two comments, `<!-- NAME:begin ARGUMENTS -->` and `<!-- NAME:end -->`,
and BLOCKS says how each is made. Measured numbers come from `benchmarks/results/RECIPE.json`, which
are the `result.json` of recorded runs; where there is none, the text says so.
"""

import argparse
import ast
import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from train.recipes import RECIPES, Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(
    r"(?P<begin><!-- (?P<name>\w+):begin(?P<arguments>[^>]*?) -->\n)"
    r".*?(?P<end><!-- (?P=name):end -->)",
    re.DOTALL,
)
NOT_RECORDED = "not recorded yet"
MODEL_PAGES = {"linear": "Linear and logistic regression", "mlp": "Multilayer perceptron"}
MODEL_PAGES |= {"convnet": "ConvNet", "resnet": "ResNet"}
MODEL_PAGES |= {"lstm": "LSTM", "gpt": "GPT", "llama": "Llama", "bert": "BERT"}
MODEL_PAGES |= {"seq2seq": "LSTM encoder-decoder", "transformer": "Encoder-decoder Transformer"}
MODEL_PAGES |= {"word2vec": "Word vectors", "gan": "GAN"}
MODEL_PAGES |= {"autoencoder": "Autoencoder", "vae": "Variational autoencoder"}
MODEL_PAGES |= {"diffusion": "Diffusion"}
# The parts that a model is made of, by the names of the files that test them.
TESTED_BY = {
    "linear": (
        "linear",
        "models",
        "torch_models",
        "torch_layers",
        "against_flax",
        "layers",
        "dense",
        "cross_entropy",
    ),
    "mlp": (
        "mlp",
        "models",
        "torch_models",
        "torch_layers",
        "against_flax",
        "layers",
        "dense",
        "activation",
        "init",
        "dropout",
    ),
    "convnet": (
        "convnet",
        "models",
        "torch_models",
        "torch_layers",
        "against_flax",
        "layers",
        "conv",
        "pooling",
        "dropout",
    ),
    "resnet": (
        "resnet",
        "models",
        "torch_models",
        "torch_layers",
        "against_flax",
        "norm",
        "conv",
        "pooling",
    ),
    "lstm": ("lstm", "recurrent", "torch_recurrent", "embed", "dropout", "sequence_tasks"),
    "gpt": ("gpt", "transformers_gpt2", "attention", "sampling", "norm", "dropout"),
    "llama": ("llama", "transformers_llama", "attention", "experts", "norm"),
    "bert": (
        "bert",
        "transformers_bert",
        "attention",
        "viterbi",
        "spans",
        "norm",
        "dropout",
        "masking",
    ),
    "seq2seq": ("seq2seq", "recurrent", "attention", "beam_search", "dropout"),
    "transformer": ("transformer", "attention", "pointer", "beam_search", "norm", "dropout"),
    "word2vec": ("word2vec", "word_vectors", "embed"),
    "gan": (
        "gan",
        "adversarial",
        "losses",
        "generative_metrics",
        "digit_judge",
        "spectral_norm",
        "torch_layers",
        "conv",
        "conv_transpose",
        "norm",
    ),
    "autoencoder": (
        "autoencoder",
        "codec",
        "reconstruction",
        "torch_layers",
        "conv",
        "conv_transpose",
        "activation",
    ),
    "vae": (
        "vae",
        "codec",
        "variational",
        "generative_metrics",
        "digit_judge",
        "losses",
        "torch_layers",
        "conv_transpose",
    ),
    "diffusion": (
        "diffusion",
        "resize",
        "attention",
        "norm",
        "conv",
        "torch_layers",
        "generative_metrics",
        "digit_judge",
    ),
}


@dataclass(frozen=True)
class Context:
    """What a block may depend on beside its arguments."""

    page: Path  # links are relative to its folder
    results: Path

    def link(self, words: str, target: str) -> str:
        """A link to a path of the repository."""
        return f"[{words}]({os.path.relpath(ROOT / target, self.page.parent)})"

    def result(self, recipe: str) -> dict[str, Any] | None:
        """What the recorded run of a recipe reached, or None."""
        path = self.results / f"{recipe}.json"
        return json.loads(path.read_text()) if path.is_file() else None


def pages() -> list[Path]:
    """Every page with generated parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def generated(page: Path, results: Path = RESULTS) -> str:
    """The text of a page with its generated parts made anew."""

    def fill(match: re.Match[str]) -> str:
        block = BLOCKS[match["name"]]
        text = block(Context(page, results), *match["arguments"].split())
        return f"{match['begin']}\n{text.strip()}\n\n{match['end']}"

    return BLOCK.sub(fill, page.read_text())


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A Markdown table; `align` has an l or an r for each column."""
    rule = ["---:" if side == "r" else "---" for side in (align or "l" * len(header))]
    cells = [header, rule, *([str(c).replace("|", "\\|") for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


# --- What runs reached ----------------------------------------------------------------------


def number(value: float | None) -> str:
    """A measured value as tables show it: four digits, whatever its size."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"


def results(context: Context, *recipes: str) -> str:
    """What recipes reached, beside what they had to; all recipes where none is named."""
    names = recipes or tuple(RECIPES)
    rows = [_result_row(context, name, RECIPES[name]) for name in names]
    header = ("recipe", "model", "held-out metric", "reached", "threshold", "baseline", "training")
    return f"{table(header, rows, 'lllrrlr')}\n\n{_recorded_on(context, names)}"


def _result_row(context: Context, name: str, row: Row) -> list[str]:
    page = f"docs/models/{_page_of(row.model)}.md"
    about = [f"`{name}`", context.link(row.model, page), row.metric]
    result = context.result(name)
    sign = "≥" if row.direction == "max" else "≤"
    if result is None:
        return [*about, NOT_RECORDED, f"{sign} {row.threshold}", "", ""]
    value = number(result.get("mean", result["metrics"][f"eval/{result['metric']}"]))
    seeds = f" (mean of {len(result['seeds'])} seeds)" if "seeds" in result else ""
    baseline, (threshold, passed) = result["baseline"], judged(row, result)
    missed = "" if passed else " (missed)"
    return [
        *about,
        f"**{value}**{seeds}{missed}",
        f"{sign} {number(threshold)}",
        f"{number(baseline['value'])} ({baseline['name']})" if baseline else "",
        f"{result['seconds']['train']:.0f} s",
    ]


def judged(row: Row, result: dict[str, Any]) -> tuple[float | None, bool | None]:
    """Today's threshold for a recorded run, which may be older, and whether the run meets it."""
    baseline = result["baseline"] and result["baseline"]["value"]
    metrics = {key.removeprefix("eval/"): value for key, value in result["metrics"].items()}
    return row.threshold_value(baseline), row.passed(metrics, baseline)


def _recorded_on(context: Context, names: Sequence[str]) -> str:
    found = [result for name in names if (result := context.result(name))]
    if not found:
        return "No run has been recorded yet."
    commits: dict[str, set[str]] = {}
    for result in found:
        commits.setdefault(_place(result), set()).add(result.get("commit", "")[:12])
    places = [
        _with_commits(place, sorted(filter(None, commits[place]))) for place in sorted(commits)
    ]
    missing = "" if len(found) == len(names) else " The others are not recorded yet."
    return (
        f"Recorded with {'; '.join(places)}. The training time leaves out compilation, evaluation "
        f"and the baseline.{missing}"
    )


def _place(result: dict[str, Any]) -> str:
    versions = result["versions"]
    return (
        f"JAX {versions['jax']}, Flax {versions['flax']}, Python {versions['python']} on "
        f"{result['device']}"
    )


def _commits(results: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({result["commit"][:12] for result in results if result.get("commit")})


def _with_commits(place: str, commits: Sequence[str]) -> str:
    if not commits:
        return place
    return f"{place}, commit{'s' if commits[1:] else ''} {', '.join(commits)}"


def result_details(context: Context, *recipes: str) -> str:
    """Everything that was measured, one table a recipe."""
    return "\n\n".join(_details(context, name) for name in recipes or RECIPES)


def _details(context: Context, name: str) -> str:
    result = context.result(name)
    if result is None:
        return f"### {name}\n\n{NOT_RECORDED.capitalize()}."
    seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in result["seconds"].items())
    wait, flops = result.get("data_wait_fraction"), result.get("train_flops")
    baseline, (threshold, passed) = result["baseline"], judged(RECIPES[name], result)
    rows = [
        *((f"`{key}`", number(value)) for key, value in result["metrics"].items()),
        ("threshold", f"{number(threshold)} on {result['metric']}"),
        ("passed", {True: "yes", False: "no", None: "nothing to compare with"}[passed]),
        *([("baseline", f"{number(baseline['value'])}, {baseline['name']}")] if baseline else []),
        ("parameters", f"{result['parameters']:,}"),
        ("steps, seed", f"{result['steps']:,}, {result['seed']}"),
        *([("seeds", _seeds(result))] if "seeds" in result else []),
        ("time", seconds),
        ("steps a second", f"{result['steps_per_second']:,.1f}"),
        *([("waiting for data", f"{wait:.2%} of training")] if wait is not None else []),
        *([("FLOPs of a step, counted by XLA", f"{flops:.3g}")] if flops else []),
        ("recorded with", _with_commits(_place(result), _commits([result]))),
        ("SHA-256 of the parameters", f"`{result['params_sha256'][:16]}...`"),
        ("command", f"`{result['command']}`"),
    ]
    return f"### {name}\n\n{table(('', name), rows)}"


def _seeds(result: dict[str, Any]) -> str:
    values = ", ".join(f"{seed}: {number(value)}" for seed, value in result["seeds"].items())
    return f"{values}; mean {number(result['mean'])}"


def speed(context: Context) -> str:
    """The measurements of `python -m benchmarks run`, on each kind of processor."""
    from benchmarks.report import everywhere

    return _measured(context, everywhere)


def ratios(context: Context) -> str:
    """Of these, how many times as long stock Flax and PyTorch take."""
    from benchmarks.report import ratios

    return _measured(context, ratios)


def _measured(context: Context, write: Callable[[dict[str, dict[str, Any]]], str]) -> str:
    from benchmarks.results import read_all

    machines = read_all(context.results / "speed")
    return write(machines) if machines else f"{NOT_RECORDED.capitalize()}."


def plans(context: Context) -> str:
    """What large models take of hardware that is not here."""
    from train.plan import tables

    rows = []
    for found in _plans(context).values():
        estimate = found["estimate"]
        moved = ", ".join(
            f"{kind} {tables.scaled(each['bytes'], 'B')}"
            for kind, each in found["collectives"].items()
        )
        rows.append(
            (
                f"`{found['name']}`",
                f"`{found['target']}`",
                f"`{tables.mesh(found)}`",
                tables.scaled(found["bytes"]["arguments"], "B"),
                tables.scaled(found["bytes"]["temporaries"], "B"),
                tables.scaled(found["flops"]["step"], "FLOP"),
                moved,
                f"{estimate['step_seconds']:.2g} s, {estimate['mfu']:.0%}",
                f"{found['compile_cpu_seconds']:.0f} s",
            )
        )
    header = ("model", "target", "mesh", "state a device", "temporaries a device")
    header += ("operations a step", "collectives, of their results", "estimate: a step, MFU")
    versions = {f"JAX {found['versions']['jax']}" for found in _plans(context).values()}
    return (
        f"{table((*header, 'to compile'), rows, 'lllrrrlrr')}\n\n"
        f"Compiled with {', '.join(sorted(versions))}; the seconds are those of all cores "
        "together, since other work shared them."
    )


def planned(context: Context, name: str) -> str:
    """A command of `python -m train plan` and what it printed."""
    from train.plan import tables

    found, said = _plans(context)[name], io.StringIO()
    with contextlib.redirect_stdout(said):
        tables.show(found)
    lines = [line.rstrip() for line in said.getvalue().splitlines()]
    return "\n".join(["```console", f"$ {found['command']}", *lines, "```"])


def _plans(context: Context) -> dict[str, dict[str, Any]]:
    return json.loads((context.results / "plan.json").read_text())


# --- What the code says about itself --------------------------------------------------------


def command(context: Context, *arguments: str) -> str:
    """A command of `python -m train` and what it prints."""
    from train import cli

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        cli.main(arguments)
    lines = [line.rstrip() for line in said.getvalue().splitlines()]
    return "\n".join(["```console", f"$ {' '.join([cli.PROG, *arguments])}", *lines, "```"])


def fields(context: Context, recipe: str) -> str:
    """Every field of a recipe: its flag, its value there, and the comment beside it."""
    loaded = RECIPES[recipe].load()
    rows = [(f"`--{flag}`", f"`{value}`", about) for flag, value, about in _fields(loaded)]
    return table(("flag", f"in `{recipe}`", "meaning"), rows)


def _fields(config: Any, prefix: str = "") -> Iterable[tuple[str, str, str]]:
    comments = _comments(type(config))
    nested = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flag = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            nested.append((value, f"{flag}."))
        elif flag != "name":  # the recipe's own name is no option
            words = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            yield flag, words or "()", comments.get(field.name, "")
    for value, flag in nested:
        yield from _fields(value, flag)


def _comments(config_class: type) -> dict[str, str]:
    """The comment beside each field, or the string below it."""
    source = inspect.getsource(config_class)
    lines, found = source.splitlines(), {}
    body = getattr(ast.parse(source).body[0], "body", [])
    for item, after in zip_longest(body, body[1:]):
        if not isinstance(item, ast.AnnAssign):
            continue
        name = ast.unparse(item.target)
        found[name] = lines[(item.end_lineno or 1) - 1].partition("  # ")[2]
        if isinstance(after, ast.Expr):
            found[name] = str(ast.literal_eval(after.value))
    return {name: words.strip().rstrip(".") for name, words in found.items()}


def models(context: Context) -> str:
    """The named models: what each is, and how many parameters it has."""
    import jax
    from flax import nnx

    from zoo.registry import MODELS, create

    def count(name: str) -> int:
        model = nnx.eval_shape(lambda: create(name, rngs=nnx.Rngs(0)))
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))

    rows = [
        (
            f"`{name}`",
            context.link(MODEL_PAGES[row.module], f"docs/models/{row.module}.md"),
            row.summary,
            f"{count(name):,}",
        )
        for name, row in MODELS.items()
    ]
    return table(("name", "page", "what it is", "parameters"), rows, "lllr")


def status(context: Context) -> str:
    """What each model family has, read off the repository."""
    rows = []
    for module, title in MODEL_PAGES.items():
        recipes = [name for name, row in RECIPES.items() if _page_of(row.model) == module]
        found = [context.result(name) for name in recipes]
        passed = sum(bool(result and result["passed"]) for result in found)
        rows.append(
            (
                context.link(title, f"docs/models/{module}.md"),
                context.link(f"`{module}.py`", f"zoo/models/{module}.py"),
                _tests(
                    context, f"tests/zoo/models/test_{module}.py", "tests/zoo/models/test_models.py"
                ),
                _tests(
                    context,
                    *(f"tests/parity/test_{part}.py" for part in TESTED_BY[module]),
                ),
                ", ".join(f"`{name}`" for name in recipes),
                f"{passed} of {len(recipes)}",
            )
        )
    header = ("model", "code", "own tests", "against PyTorch", "recipes", "threshold met")
    return table(header, rows)


def _tests(context: Context, *paths: str) -> str:
    """A link to the first of the files that exists."""
    found = [path for path in paths if (ROOT / path).is_file()]
    return context.link("yes", found[0]) if found else "not yet"


def tests(context: Context, module: str) -> str:
    """The files that test a model and what it is made of, in their own words."""
    folders = ("zoo/models", "parity", "zoo/layers", "zoo/functional", "kernels", "train")
    files = [path for part in folders for path in sorted((ROOT / "tests" / part).glob("test_*.py"))]
    wanted = {f"test_{part}" for part in TESTED_BY[module]}
    rows = [
        (context.link(f"`{path.relative_to(ROOT)}`", str(path.relative_to(ROOT))), _about(path))
        for path in files
        if path.stem in wanted
    ]
    return table(("test", "what it compares"), rows) if rows else "No test yet."


def _about(path: Path) -> str:
    """The first sentence of a file's docstring, without its full stop."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    return re.split(r"\.(?: |$)", text, maxsplit=1)[0].replace("`", "")


def embedded(context: Context) -> str:
    """The table of the embedded data's own description."""
    text = (ROOT / "train/data/embedded/README.md").read_text()
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def _page_of(model: str) -> str:
    from zoo.registry import MODELS

    return MODELS[model].module


BLOCKS: dict[str, Callable[..., str]] = {
    "command": command,
    "details": result_details,
    "embedded": embedded,
    "fields": fields,
    "models": models,
    "planned": planned,
    "plans": plans,
    "ratios": ratios,
    "results": results,
    "speed": speed,
    "status": status,
    "tests": tests,
}


def main() -> None:
    """Writes every page whose generated parts are out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    folder = parser.parse_args().results
    for page in pages():
        if (text := generated(page, folder)) != page.read_text():
            page.write_text(text)
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
