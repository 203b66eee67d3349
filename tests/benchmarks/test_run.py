"""The harness end to end on a tiny entry, and what it refuses."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as cli
from benchmarks import entries, machine, process, results
from benchmarks.entry import Competitor, Entry, Promise, load
from benchmarks.run import Effort, Mismatch, _compare, run
from tests.benchmarks.tiny import Sum
from train.data.words import Vocabulary

QUICK = Effort(quick=True, threads=1, patience=60.0)


@pytest.fixture(autouse=True)
def _quiet_peak(monkeypatch):
    """The matmul peak is another process with JAX in it, which these tests can do without."""
    monkeypatch.setattr(machine, "peak_flops", lambda threads: 1e9)


@pytest.fixture
def tiny(monkeypatch):
    """The command line knows the tiny entry only."""
    monkeypatch.setattr(entries, "ENTRIES", {"tiny": "tests.benchmarks.tiny"})
    monkeypatch.setattr(cli, "ENTRIES", entries.ENTRIES)


def test_end_to_end(tiny, tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert cli.main(["run", "tiny", "--quick", "--threads", "1", "--json", str(path)]) == 0
    entry = results.read(path)["tiny"]
    assert entry["values"] == [46.0, 47.0, 48.0]  # 0 + 1 + ... + 9, and the number of the call
    assert entry["quick"] and entry["rounds"] == 2 and entry["flops"] == 9.0
    assert entry["left_out"] == {"absent": "a_package_that_is_not_there is not installed"}
    assert list(entry["competitors"]) == ["ours", "pairs", "half"]
    assert [found["ms"]["count"] for found in entry["competitors"].values()] == [8, 8, 8]
    assert [found["disagreement"] for found in entry["competitors"].values()] == [0, 0, None]
    assert entry["competitors"]["ours"]["ratio"]["median"] == 1
    assert [promise["kept"] for promise in entry["promises"]] == [True, False, False]
    out = capsys.readouterr().out
    assert "| pairs (two at once) |" in out
    assert "\n| half |" in out and out.count("| half |") == 1  # none of those to compare with
    assert cli.main(["report", "--json", str(path)]) == 0
    assert "### tiny" in capsys.readouterr().out


def test_a_quick_run_is_not_kept_among_the_recorded(tiny, monkeypatch, tmp_path, capsys):
    path = tmp_path / "of_this_processor.json"
    monkeypatch.setattr(results, "path_for", lambda processor: path)
    assert cli.main(["run", "tiny", "--quick", "--threads", "1"]) == 0
    assert "A quick run" in capsys.readouterr().out and not path.exists()


def test_other_work_is_an_error_before_anything_is_timed(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(cli.ENTRIES, "tiny", "tests.benchmarks.wrong")
    path = tmp_path / "bench.json"
    assert cli.main(["run", "--quick", "--threads", "1", "--json", str(path)]) == 1
    assert "error: cheat does other work than ours" in capsys.readouterr().err
    assert not path.exists()


def test_a_broken_competitor_is_named_with_its_last_words():
    with pytest.raises(
        process.WorkerError, match=r"'broken' ended with code 1:(.|\n)*no such instr"
    ):
        run("tests.benchmarks.failing", QUICK, lambda text: None)


@pytest.mark.skipif(sys.platform != "linux", reason="the system call is Linux's")
def test_a_stopped_worker_does_not_outlive_its_coordinator(tmp_path):
    np.savez(tmp_path / "arrays.npz", numbers=np.arange(3.0))
    arrays = str(tmp_path / "arrays.npz")
    program = (
        "import os; from benchmarks.process import Worker\n"
        f"worker = Worker('tests.benchmarks.tiny', 'ours', {arrays!r}, 1, 60.0)"
        "\nprint(worker.process.pid, flush=True); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=machine.ROOT
    )
    end = time.monotonic() + 20
    while _is_alive(int(done.stdout)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _is_alive(int(done.stdout))


def _is_alive(pid: int) -> bool:
    """Whether a process runs or is stopped: an ended one may wait for its parent to notice."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.1], [1.0, 2.0, float("nan")]])
def test_values_that_differ(values):
    with pytest.raises(Mismatch, match="torch does other work"):
        _compare({"ours": [1.0, 2.0, 3.0], "torch": values}, 1e-4)


def test_values_within_the_tolerance():
    found = _compare({"ours": [1.0, 2.0, 4.0], "torch": [1.0, 2.0, 4.0001]}, 1e-4)
    assert found == pytest.approx({"ours": 0.0, "torch": 2.5e-5})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tine"], "no benchmark 'tine'; did you mean 'tiny'?"),
        (["run", "--rounds", "0"], "rounds=0"),
        (["report", "--json", "nothing.json"], "nothing.json"),
    ],
)
def test_mistakes_are_one_line(tiny, capsys, arguments, message):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_damaged_results_file_is_found_before_the_work(tiny, tmp_path, capsys):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"schema": 1}))
    assert cli.main(["run", "--quick", "--json", str(path)]) == 2
    assert "['entries'] missing or unknown" in capsys.readouterr().err


@pytest.mark.parametrize("name", entries.ENTRIES)
def test_each_entry_is_one(name):
    entry = load(entries.ENTRIES[name])
    assert entry.name == name
    torches = {n: c for n, c in entry.competitors.items() if n.startswith("torch")}
    assert torches and all(c.requires == ("torch",) for c in torches.values())
    # 12 rounds give at least the 30 timed units that a figure must rest on.
    assert Effort().rounds * entry.timed_per_turn >= 30


@pytest.mark.parametrize("name", ["ours", "torch", "gensim"])
def test_every_way_to_word_vectors_learns_from_the_same_share_of_a_text(name):
    competitor = load(entries.ENTRIES["word2vec"]).competitors[name]
    for package in competitor.requires:
        pytest.importorskip(package)
    generator = np.random.default_rng(0)
    counts = 100_000 // np.arange(1, 1001)
    words = np.array(["love", "sex", "tiger", "cat", "book", "paper"])  # of WordSim-353
    tokens = generator.choice(1000, 40_000, p=counts / counts.sum()).astype(np.int32)
    arrays = {
        "words": np.append(words, [f"word{i}" for i in range(1000 - len(words))]),
        "counts": counts,
        "tokens": tokens,
        "lengths": np.full(400, 100),
    }
    keep = Vocabulary(tuple(arrays["words"].tolist()), counts).keep_probability(1e-3)
    (value,) = competitor.build(arrays).advance()
    assert value == pytest.approx(keep[tokens].sum(), abs=4096)  # ours ends with a whole batch


def test_list(capsys):
    assert cli.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == list(entries.ENTRIES)


def test_an_entry_needs_someone_to_compare_with():
    ours = {"ours": Competitor(build=Sum)}
    with pytest.raises(ValueError, match="needs a competitor 'ours' and another"):
        Entry(name="a", summary="", unit="", prepare=lambda quick: {}, competitors=ours)
    with pytest.raises(ValueError, match="promises what 'x' cannot show"):
        Entry(
            name="a",
            summary="",
            unit="",
            prepare=lambda quick: {},
            competitors=ours | {"b": Competitor(build=Sum)},
            promises=(Promise(text="", against="x"),),
        )
