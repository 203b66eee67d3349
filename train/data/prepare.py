"""Where prepared TFDS sets lie, how the embedded ones get there, and how others are found there."""

import contextlib
import difflib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from train.data.config import TFDS_PREFIX
from train.data.embedded import NAMES, VERSION
from train.errors import UserError

INFO = "dataset_info.json"  # TFDS writes it last: a folder that has it is complete


def data_home() -> Path:
    """TFDS's usual place: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def folder_of(name: str, data_dir: Path | None = None) -> Path:
    """The prepared folder of a set; an embedded set is prepared first where needed.

    Args:
        name: an embedded set's name, or ``tfds:NAME``, ``tfds:NAME/CONFIG:VERSION``.
        data_dir: the prepared folder itself, the set's folder, or the folder that holds the set.

    Raises:
        UserError: for an unknown name, or one that is not prepared there.
    """
    plain = name.removeprefix(TFDS_PREFIX)
    if data_dir is not None:
        return _inside(plain, data_dir.expanduser())
    if plain in NAMES:
        return prepare(plain)
    if name == plain:
        raise UserError(f"unknown data set {name!r}{_nearest(plain)}")
    return _prepared(plain, data_home()) or _refuse(plain)


def prepare(name: str) -> Path:
    """Writes an embedded set as TFDS records unless that was done before; returns its folder.

    A lock keeps two processes from writing at once, TFDS renames the finished folder into place,
    and what a killed process left behind is removed by the next.

    Raises:
        UserError: when the embedded file is corrupt or the place cannot be written.
    """
    home = data_home()
    folder = home / name / VERSION
    if (folder / INFO).is_file():
        return folder
    import tensorflow_datasets as tfds

    from train.data.builders import BUILDERS

    tfds.disable_progress_bar()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system releases it when the process dies
            if (folder / INFO).is_file():
                return folder
            for leftover in (home / name).glob("*incomplete*"):
                shutil.rmtree(leftover)
            print(f"preparing {name} in {folder}", file=sys.stderr)
            with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
                BUILDERS[name](data_dir=home, file_format="array_record").download_and_prepare()
            return folder
    except UserError:
        raise
    except Exception as error:  # array_record reports a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"data set {name} cannot be written to {home} ({reason}): make room, or set "
            "TFDS_DATA_DIR to a folder that you can write"
        ) from error


def _inside(name: str, data_dir: Path) -> Path:
    if (data_dir / INFO).is_file():
        return data_dir
    if found := _prepared(name, data_dir):
        return found
    if versions := [path.parent for path in _finished(data_dir.glob(f"*/{INFO}"))]:
        return max(versions, key=_version)
    if not data_dir.is_dir():
        raise UserError(f"data folder {data_dir} does not exist: give a prepared TFDS folder")
    held = sorted({path.relative_to(data_dir).parts[0] for path in _infos(data_dir)})
    if not held:
        raise UserError(
            f"{data_dir} is not a prepared TFDS folder: neither it nor a folder in it has {INFO}"
        )
    raise UserError(
        f"{data_dir} holds no prepared set {name!r}; it holds {', '.join(held)}: "
        f"choose one with --data {TFDS_PREFIX}{held[0]}"
    )


def _infos(folder: Path) -> list[Path]:
    """The descriptions of all sets below: NAME/VERSION and NAME/CONFIG/VERSION."""
    return _finished([*folder.glob(f"*/*/{INFO}"), *folder.glob(f"*/*/*/{INFO}")])


def _finished(infos: Iterable[Path]) -> list[Path]:
    return [path for path in infos if "incomplete" not in path.parent.name]


def _prepared(name: str, home: Path) -> Path | None:
    """The newest prepared version of NAME, NAME:VERSION, NAME/CONFIG or NAME/CONFIG:VERSION."""
    base, _, version = name.partition(":")
    found = [path.parent for path in _infos(home) if path.is_relative_to(home / base)]
    found = [folder for folder in found if version in ("", folder.name)]
    configs = sorted({folder.parent.relative_to(home).as_posix() for folder in found})
    if len(configs) > 1:
        raise UserError(
            f"data set {name!r} is prepared in several configurations; choose one of "
            + ", ".join(TFDS_PREFIX + config for config in configs)
        )
    return max(found, key=_version, default=None)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def _refuse(name: str) -> Path:
    import tensorflow_datasets as tfds

    home, base = data_home(), name.partition(":")[0].partition("/")[0]
    if base not in tfds.list_builders(with_community_datasets=False):
        raise UserError(f"unknown data set {TFDS_PREFIX + name!r}{_nearest(base)}")
    raise UserError(
        f"data set {TFDS_PREFIX + name!r} is not prepared in {home}: where TensorFlow is "
        f"installed, run python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', "
        f"data_dir='{home}', file_format='array_record').download_and_prepare()\""
    )


def _nearest(name: str) -> str:
    """The end of a message: the closest of the embedded sets, TFDS's own and the prepared ones."""
    import tensorflow_datasets as tfds

    prepared = {path.relative_to(data_home()).parts[0] for path in _infos(data_home())}
    catalogue = {*tfds.list_builders(with_community_datasets=False), *prepared} - {*NAMES}
    close = difflib.get_close_matches(name, [*NAMES, *sorted(catalogue)], n=1)
    if not close:
        return f"; embedded sets are {', '.join(NAMES)}, others are written {TFDS_PREFIX}NAME"
    return f"; did you mean {close[0] if close[0] in NAMES else TFDS_PREFIX + close[0]!r}?"
