"""The command line in this process, two finished runs to try it on, and batches of few shapes."""

import os
from pathlib import Path
from unittest import mock

import pytest

from tests.train import tiny
from train.cli import main
from train.data import sequences


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command line in an empty folder, in this process: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with mock.patch.dict(os.environ):  # or later tests' processes would inherit what it sets
            try:
                code = main([str(word) for word in words])
            except SystemExit as ending:  # argument parsers end so after --help
                code = int(ending.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def two_buckets():
    """A step is compiled for each bucket: two show all that twelve do, and six times as fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "MAX_BUCKETS", 2)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run on images."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["run", "digits-mlp", "--workdir", str(folder), *tiny.fields("digits-mlp")]) == 0
    return folder


@pytest.fixture(scope="session")
def finished_table(tmp_path_factory) -> Path:
    """The folder of a finished run on a table."""
    folder, name = tmp_path_factory.mktemp("cli") / "run", "linear-diabetes"
    assert main(["run", name, "--workdir", str(folder), *tiny.fields(name)]) == 0
    return folder
