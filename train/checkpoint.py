"""Checkpoints: Orbax writes them in the background, keeps the newest and the best, and renames each
into place only when it is whole.

This file adds the proof that what is read is what was written: the SHA-256 of all arrays and of the
progress beside them stands in the checkpoint, so a flipped bit is found and not trained on.
"""

import contextlib
import errno
import gc
import hashlib
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from train.arrays import is_key, on_host
from train.config import CheckpointConfig
from train.errors import UserError
from train.peers import ALONE, Peers


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """False for what asyncio says of an array that Orbax has given up, because another one failed.

    A task names its coroutine's file in the message; several gathered ones only in the traceback.
    """
    raised = record.exc_info[2] if record.exc_info else None
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(raised)]
    return not any("orbax" in text for text in [record.getMessage(), *files])


# What Orbax raises it also logs, with tracebacks; here every error is told, in a line.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
logging.getLogger("asyncio").addFilter(_not_of_orbax)

DAMAGED = "damaged"  # the folder, beside the checkpoints, where unreadable ones are set aside


def digest(paths: Sequence[str], leaves: Sequence[Any]) -> str:
    """SHA-256 over path, type, shape and bytes of every array, in path order."""
    total = hashlib.sha256()
    for path, leaf in sorted(zip(paths, leaves, strict=True), key=lambda pair: pair[0]):
        if is_key(leaf):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(on_host(leaf))
        total.update(f"{path}:{array.dtype}:{array.shape}:".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _seal(paths: Sequence[str], leaves: Sequence[Any], progress: dict[str, Any]) -> str:
    """The digest of the arrays and the progress together."""
    text = json.dumps(progress, sort_keys=True)
    return hashlib.sha256(f"{digest(paths, leaves)}:{text}".encode()).hexdigest()


@dataclass(frozen=True)
class Restored:
    """A checkpoint read back and verified."""

    step: int
    leaves: list[jax.Array]
    progress: dict[str, Any]  # what the loop stored beside the arrays
    digest: str  # of both, as they were written


class Checkpoints:
    """The checkpoints of a run folder; ``read_only`` looks into a run that may be going on."""

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        metric: str,
        direction: str,
        *,
        read_only: bool = False,
        peers: Peers = ALONE,
    ):
        self.folder = folder.absolute()
        self.read_only, self.peers = read_only, peers
        self.metric = metric
        self.best = _Best(1 if direction == "max" else -1)
        self._hook, sys.unraisablehook = sys.unraisablehook, _without_abandoned(sys.unraisablehook)
        self.manager = self.reader = _manager(
            self.folder,
            alone=peers.count == 1,
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(config.keep), self.best]
            ),
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
        )
        if peers.count > 1:
            # All write a checkpoint together, and each reads by itself: what is wrong with a file
            # only some may find, and Orbax would have the others wait for them.
            self.reader = _manager(self.folder, alone=True, read_only=True)
        for step in self.manager.all_steps():
            # What cannot be read has no score; a restore finds out why.
            with contextlib.suppress(Exception):
                self.best.scores[step] = self._progress(step)["score"]

    def save(
        self,
        step: int,
        paths: Sequence[str],
        leaves: Sequence[jax.Array],
        progress: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Starts to save; returns once the arrays are copied, before they are on disk.

        Raises:
          UserError: this or the save before it found the disk full.
        """
        arrays = {path: _as_array(leaf) for path, leaf in zip(paths, leaves, strict=True)}
        score = metrics[self.metric] if metrics else None
        self.best.scores[step] = score
        # A copy: it is written later, while the loop goes on counting in its own.
        progress = json.loads(json.dumps({**progress, "score": score}))
        progress["digest"] = _seal(paths, leaves, progress)
        with _disk_errors(self.folder):
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.PyTreeSave({_escape(k): v for k, v in arrays.items()}),
                    progress=ocp.args.JsonSave(progress),
                ),
                force=True,
            )

    def wait(self) -> None:
        """Blocks until the newest checkpoint is on disk; raises like :meth:`save`."""
        with _disk_errors(self.folder):
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the newest checkpoint and frees the background threads."""
        try:
            with _disk_errors(self.folder):
                self.manager.close()
                self.reader.close()
        finally:
            sys.unraisablehook = self._hook

    def restore(self, paths: Sequence[str], like: Sequence[jax.Array], warn) -> Restored | None:
        """The newest checkpoint that reads back as it was written, or None when there is none.

        A damaged one is named through ``warn`` and, unless this is read-only, moved to
        ``damaged/``; the one before it is tried.
        """
        steps = self.peers.gather(sorted(self.manager.all_steps(), reverse=True))[0]
        for step in steps:
            found, mistake = None, None
            try:
                found = self._read(step, paths, like)
            except Exception as error:  # Orbax, TensorStore and JSON each raise their own kinds
                mistake = _first_line(error)
            mistake = next(filter(None, self.peers.gather(mistake)), None)
            if found is not None and mistake is None:
                mistake = self._mistake(found, paths)
            if mistake is None:
                return found
            found = None
            gc.collect()  # ends the reads of the other arrays, which Orbax abandons half-way
            what = f"checkpoint {step} is damaged ({mistake})"
            warn(what if self.read_only else f"{what}; moved to {self._set_aside(step)}")
        if steps and not self.read_only:
            warn("no readable checkpoint is left: starting again from step 0")
        return None

    def _progress(self, step: int) -> dict[str, Any]:
        read = self.reader.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))
        return dict(read["progress"])

    def _read(self, step: int, paths: Sequence[str], like: Sequence[jax.Array]) -> Restored:
        template = {_escape(path): _as_array(leaf) for path, leaf in zip(paths, like, strict=True)}
        read = self.reader.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.PyTreeRestore(
                    template, restore_args=ocp.checkpoint_utils.construct_restore_args(template)
                ),
                progress=ocp.args.JsonRestore(),
            ),
        )
        leaves = [
            _like(read["arrays"][_escape(path)], leaf)
            for path, leaf in zip(paths, like, strict=True)
        ]
        progress = dict(read["progress"])
        return Restored(step, leaves, progress, progress.pop("digest"))

    def _mistake(self, read: Restored, paths: Sequence[str]) -> str | None:
        """How a checkpoint is not what was written."""
        if (found := _seal(paths, read.leaves, read.progress)) != read.digest:
            return f"its contents hash to {found[:12]}..., not to {read.digest[:12]}..."
        return None

    def _set_aside(self, step: int) -> Path:
        place = str(self._moved(step)) if self.peers.first else None
        place = self.peers.gather(place)[0]
        self.manager.reload()
        self.reader.reload()
        return Path(place)

    def _moved(self, step: int) -> Path:
        aside = self.folder.parent / DAMAGED / str(step)
        number = 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{step}-{number}")
        aside.parent.mkdir(exist_ok=True)
        shutil.move(self.folder / str(step), aside)
        return aside


def _manager(folder: Path, *, alone: bool, **options: Any) -> ocp.CheckpointManager:
    """Orbax's manager of a folder, of which ``alone`` is one process that waits for no other."""
    if alone and jax.process_count() > 1:
        folder.mkdir(parents=True, exist_ok=True)
        me = jax.process_index()
        options |= {
            "create": False,
            "multiprocessing_options": ocp.options.MultiprocessingOptions(
                primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
            ),
        }
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(**options))


class _Best(policies.PreservationPolicy):
    """Keeps the checkpoint with the best score; of equal ones the newest.

    Orbax has a policy for this, but it forgets the scores when the process ends.
    """

    def __init__(self, sign: int):
        self.sign = sign
        self.scores: dict[int, float | None] = {}

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [c.step for c in checkpoints]
        scored = {n: score for n in steps if (score := self.scores.get(n)) is not None}
        best = max(scored, key=lambda n: (self.sign * scored[n], n), default=None)
        return [n == best for n in steps]


def _escape(path: str) -> str:
    return path.replace("/", ".")


def _as_array(leaf: jax.Array) -> jax.Array | np.ndarray:
    """Typed random keys are stored as the integers they are made of."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    # Of an array that only one of several processes has, Orbax takes numpy's kind.
    alone = jax.process_count() > 1 and leaf.is_fully_addressable
    return np.asarray(leaf) if alone else leaf


def _like(array: jax.Array | np.ndarray, leaf: jax.Array) -> jax.Array:
    if array.shape != _as_array(leaf).shape or array.dtype != _as_array(leaf).dtype:
        raise ValueError(
            f"it holds {array.dtype}{array.shape} where {leaf.dtype}{leaf.shape} is due"
        )
    if isinstance(array, np.ndarray):
        array = jnp.asarray(array)
    return (
        jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if is_key(leaf) else array
    )


def _without_abandoned(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """``hook`` for what nobody can catch, less what Orbax abandons.

    When one array cannot be read or written, each of the others would end in a traceback.
    """

    def filtered(unraisable: Any) -> None:
        closed = "Event loop is closed" in str(unraisable.exc_value)
        coroutine = getattr(unraisable.object, "cr_code", None)
        if not closed and not (coroutine and "orbax" in coroutine.co_filename):
            hook(unraisable)

    return filtered


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


class _disk_errors:
    """Turns a full disk, however deep in a library it was met, into one line for the user."""

    MARKS = (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG), os.strerror(errno.EDQUOT))

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self):
        return self

    def __exit__(self, kind, error, where):
        chain, seen = error, []
        while chain is not None:
            seen.append(str(chain))
            chain = chain.__cause__ or chain.__context__
        if any(mark in text for text in seen for mark in self.MARKS):
            raise UserError(
                f"the disk of {self.folder} is full: the newest checkpoint could not be written; "
                "earlier checkpoints are whole: free some space and run the same command again"
            ) from error
        return False
