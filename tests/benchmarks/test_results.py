"""The results file: what is written can be read, and what departs from the schema is named."""

import copy
import json

import pytest

from benchmarks import results
from benchmarks.record import RESULTS
from benchmarks.report import everywhere, markdown, ratios
from train.recipes import RECIPES

SUMMARY = {"median": 2.0, "p10": 1.0, "p90": 3.0, "count": 30}
FIGURES = {
    "what": "",
    "setup_seconds": 1,
    "disagreement": 0.0,
    "ms": SUMMARY,
    "ratio": SUMMARY,
    "peak_share": 0.5,
}
ENTRY = {
    "summary": "A sum.",
    "unit": "sum",
    "quick": False,
    "when": "2026-01-01T00:00:00+00:00",
    "rounds": 12,
    "units_per_turn": 3,
    "flops": 1e9,
    "machine": {
        "cpu": "abacus",
        "cores": 2,
        "threads": 2,
        "system": "Linux",
        "versions": {"jax": "0.10.2"},
        "commit": "0123456789abcdef-changed",
    },
    "peak_flops": 1e12,
    "load_average": [0.1, 0.2],
    "others_cpu": 0.5,
    "values": [1.0, 2.0, 3.0],
    "left_out": {"torch": "torch is not installed"},
    "competitors": {"ours": FIGURES, "flax.nnx": FIGURES | {"peak_share": None}},
    "promises": [{"text": "it is fast", "kept": False, "figure": "0.5x"}],
}


RECORDED = sorted(path.stem for path in RESULTS.glob("*.json") if path.stem in RECIPES)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_meets_today_s_threshold(name):
    """Whatever the threshold was on the day of the run."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    assert result["recipe"] == name
    metrics = {key.removeprefix("eval/"): value for key, value in result["metrics"].items()}
    assert RECIPES[name].passed(metrics, result["baseline"]["value"]) is True


def test_digits_gan_is_held_against_its_pytorch_twin():
    """Mean of three seeds against mean of three seeds, and each run against their threshold."""
    ours, twin = (
        json.loads((RESULTS / name).read_text())
        for name in ("digits-gan.json", "digits-gan-twin.json")
    )
    scores = [run["metrics"]["digit_fid"] for run in twin["seeds"].values()]
    assert set(ours["seeds"]) == set(twin["seeds"]) == {"0", "1", "2"}
    assert twin["mean"] == pytest.approx(sum(scores) / 3)
    assert ours["mean"] == pytest.approx(sum(ours["seeds"].values()) / 3)
    assert ours["mean"] <= 1.1 * twin["mean"]
    assert RECIPES["digits-gan"].threshold == round(1.1 * twin["mean"], 1)


def test_bible_gpt_keeps_its_promises():
    """The mean of three seeds, and training in at most 90 seconds on two cores."""
    ours = json.loads((RESULTS / "bible-gpt.json").read_text())
    assert set(ours["seeds"]) == {"1", "2", "3"}
    assert ours["mean"] == pytest.approx(sum(ours["seeds"].values()) / 3)
    assert ours["mean"] <= RECIPES["bible-gpt"].threshold == 1.67
    assert ours["steps"] == 2000 and ours["seconds"]["train"] <= 90


def test_written_and_read(tmp_path):
    path = tmp_path / "new" / "bench.json"
    results.update(path, {"b": ENTRY})
    results.update(path, {"a": ENTRY | {"rounds": 1}})
    assert results.read(path) == {"a": ENTRY | {"rounds": 1}, "b": ENTRY}
    assert [p.name for p in path.parent.iterdir()] == ["bench.json"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: e.pop("rounds"), r"entries.a: \['rounds'\] missing or unknown"),
        (lambda e: e.update(extra=1), r"entries.a: \['extra'\] missing or unknown"),
        (lambda e: e.update(load_average=["x"]), r"load_average\[0\] must be float, is 'x'"),
        (lambda e: e.update(competitors=3), "competitors must be an object, is 3"),
        (lambda e: e.update(values=3), "values must be a list, is 3"),
        (lambda e: e["competitors"]["ours"].update(ms=None), "ours.ms must be an object"),
    ],
)
def test_departures_are_named(spoil, message):
    entry = copy.deepcopy(ENTRY)
    spoil(entry)
    with pytest.raises(results.ResultsError, match=message):
        results.check({"schema": 1, "entries": {"a": entry}})


def test_an_invalid_entry_is_not_written(tmp_path):
    with pytest.raises(results.ResultsError):
        results.update(tmp_path / "bench.json", {"a": {}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), (json.dumps({"schema": 2, "entries": {}}), "has schema 2")],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(results.ResultsError, match=message):
        results.read(path)


def test_report():
    text = markdown({"sums": ENTRY, "more": ENTRY | {"quick": True}})
    assert "| flax.nnx | 2.00x | 2.00x | 2 |" in text  # geometric mean, least, entries
    assert "| flax.nnx | 2.00x (1.00 to 3.00) | 2.00 (1.00 to 3.00) |  | 1.0 |" in text
    assert "| ours | 1 | 2.00 (1.00 to 3.00) | 50 % | 1.0 |" in text
    assert "Promise: it is fast: **broken** (0.5x)." in text
    assert "Without torch: torch is not installed." in text
    assert "busy with other programs" in text
    assert text.count("A quick run") == 1
    assert "commit 0123456789ab-changed" in text


def test_ratios_of_what_stock_flax_was_measured_in():
    rivals = {"torch": FIGURES | {"ratio": SUMMARY | {"median": 0.5}}}
    entries = {"a": ENTRY, "b": ENTRY | {"competitors": rivals}}
    found = ratios({"abacus": entries}).splitlines()
    assert found[0] == "abacus:" and found[4:] == ["| A sum | 2.00x |  |  |"]
    entries["a"] = ENTRY | {"competitors": ENTRY["competitors"] | rivals}
    assert ratios({"abacus": entries}).splitlines()[4:] == ["| A sum | 2.00x | 0.50x |  |"]


def test_the_promises_of_all_processors_side_by_side(tmp_path):
    kept = {"text": "it is fast", "kept": True, "figure": "2.0x"}
    new = {"text": "it is small", "kept": True, "figure": "1 B"}
    slide_rule = ENTRY | {"promises": [kept, new], "machine": ENTRY["machine"] | {"cpu": "Rule(R)"}}
    for entry in (slide_rule, ENTRY):
        results.update(results.path_for(entry["machine"]["cpu"], tmp_path), {"sums": entry})
    text = everywhere(results.read_all(tmp_path))
    assert "| promise | abacus | Rule(R) |\n|---|---|---|\n" in text
    assert "| sums: it is fast | **broken**, 0.5x | kept, 2.0x |" in text
    assert "| sums: it is small |  | kept, 1 B |" in text
    assert text.index("### abacus") < text.index("#### sums") < text.index("### Rule(R)")


def test_a_file_for_each_kind_of_processor(tmp_path):
    name = results.path_for("Intel(R) Core(TM) i7-1165G7 @ 2.80GHz", tmp_path).name
    assert name == "intel-core-i7-1165g7-2-80ghz.json"
    assert results.read_all(tmp_path) == {}


def test_recorded_timings_stand_under_their_processor_s_name():
    files = list(results.FOLDER.glob("*.json"))
    assert len(results.read_all()) == len(files) > 0
    for path in files:
        for entry in results.read(path).values():
            assert results.path_for(entry["machine"]["cpu"]) == path and not entry["quick"]
