"""Which commit a timing is said to be of."""

import subprocess

from benchmarks import machine


def test_results_are_no_change_of_the_code(tmp_path, monkeypatch):
    """A run writes an entry's figures before it measures the next entry."""
    monkeypatch.setattr(machine, "ROOT", tmp_path)

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit() -> object:
        return machine.describe(1)["commit"]

    assert commit() == "unknown"
    results, code = tmp_path / "benchmarks/results/a.json", tmp_path / "benchmarks/a.py"
    results.parent.mkdir(parents=True)
    git("init")
    for path in (results, code):
        path.write_text("old")
    git("add", ".")
    git("commit", "-m", "all")
    clean = commit()
    results.write_text("new")
    assert commit() == clean and len(str(clean)) == 40
    code.write_text("new")
    assert commit() == f"{clean}-changed"
