"""The run folder: what a run writes, where, and when a folder may be written to at all."""

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from train.checkpoint import DAMAGED
from train.config import Recipe, differences, from_json, to_json
from train.errors import UserError
from train.metric_log import replace_file
from train.recipes import RECIPES
from train.result import write_json

RUN_FILES = (
    "metrics.jsonl",
    "report.html",
    "result.json",
    "sample.png",
    "tokenizer.json",
    "vocabulary.tsv",
    "checksums.sha256",
)
_HALF_WRITTEN = "config.json.partial"  # all that a run killed at its start may leave
SEEN_SECONDS = 20  # until a file on storage that machines share is seen by all of them
RUN_FOLDERS = ("checkpoints", DAMAGED, "tensorboard", "baseline", "nonfinite")


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def checksums(self) -> Path:
        """Of the task's own files, in the form that ``sha256sum --check`` reads."""
        return self.path / "checksums.sha256"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def finished(self) -> dict[str, Any] | None:
        """What ``result.json`` holds if the run has ended, else None."""
        ended = self.report.exists() and (self.path / "result.json").exists()
        advice = "remove it and run again: its last step is in the checkpoints"
        return _read_json(self.path / "result.json", advice) if ended else None

    def recipe(self) -> Recipe:
        """The resolved recipe of the run.

        Raises:
          UserError: this is no run folder, or its config was damaged.
        """
        if not self.config.is_file():
            raise UserError(f"{self.path} is no run folder: it has no config.json")
        values = _read_json(self.config, "name another folder, or remove this one")
        name = values.get("name") if isinstance(values, dict) else None
        if not isinstance(name, str) or name not in RECIPES:
            raise UserError(f"{self.config} is of recipe {name!r}, which does not exist here")
        return from_json(RECIPES[name].load(), values)

    def check(self, recipe: Recipe, resume: Literal["auto", "never"]) -> None:
        """Refuses, before anything is written, a folder that this run must not write to."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--workdir {self.path} is a file; name a folder")
        existing = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not os.access(existing, os.W_OK):
            raise UserError(f"--workdir {self.path}: {existing} is read-only; name another folder")
        if self.config.is_file():
            there = self.recipe()
            if there.name != recipe.name:
                raise UserError(
                    f"--workdir {self.path} holds a run of {there.name!r}, not of {recipe.name!r}; "
                    "name another folder"
                )
            changed = differences(to_json(there), to_json(recipe))
            if changed and resume == "auto":
                raise UserError(
                    f"--workdir {self.path} holds a run with another config (there, here): "
                    f"{'; '.join(changed)}; name another folder, or replace that run with "
                    "--resume never"
                )
        elif self.path.is_dir() and {p.name for p in self.path.iterdir()} - {_HALF_WRITTEN}:
            raise UserError(
                f"--workdir {self.path} is not empty and holds no run; name another folder"
            )

    def check_files(self, made: dict[str, str] | None = None) -> None:
        """Refuses a run whose own files are not those that it was trained with.

        Args:
          made: what the task would write today, where it is about to; by name.

        Raises:
          UserError: one is missing or was changed, or is no longer what the task makes.
        """
        if not self.checksums.is_file():
            return
        for line in self.checksums.read_text().splitlines():
            digest, name = line.split(maxsplit=1)
            path = self.path / name
            if made is not None and _sha256(made.get(name, "").encode()) != digest:
                raise UserError(
                    f"{path} is not what the data give today, so the checkpoints beside it would "
                    "be read wrongly; put data and library versions back as they were, name "
                    "another folder, or replace that run with --resume never"
                )
            if not path.is_file() or _sha256(path.read_bytes()) != digest:
                raise UserError(
                    f"{path} does not fit the checkpoints: it is missing, or not the file that "
                    "this run was trained with; put that one back, or run the recipe again"
                )

    def open(self, recipe: Recipe, resume: Literal["auto", "never"], files: dict[str, str]) -> None:
        """Makes the folder and writes ``config.json``; ``resume="never"`` removes the run there.

        Args:
          recipe: what runs.
          resume: whether a run that is there already goes on.
          files: what the task keeps beside its checkpoints, by name.

        Raises:
          UserError: the folder cannot be written, or holds a run with other files.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if resume == "never":
                for name in RUN_FILES:
                    (self.path / name).unlink(missing_ok=True)
                for name in RUN_FOLDERS:
                    shutil.rmtree(self.path / name, ignore_errors=True)
            self.check_files(files)
            write_json(self.config, to_json(recipe))
            for name, text in files.items():
                replace_file(self.path / name, text)
            if files:
                lines = [f"{_sha256(text.encode())}  {name}\n" for name, text in files.items()]
                replace_file(self.checksums, "".join(lines))
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                f"--workdir {self.path} cannot be written ({error.strerror}); name another folder"
            ) from error

    def check_shared(self) -> None:
        """Refuses a folder that was opened by another process, and that this one does not see."""
        end = time.monotonic() + SEEN_SECONDS
        while not self.config.is_file():
            if time.monotonic() > end:
                raise UserError(
                    f"--workdir {self.path.absolute()} is not the folder that process 0 writes to; "
                    "name one on storage that all processes share"
                )
            time.sleep(0.2)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_json(path: Path, advice: str) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); {advice}") from error
