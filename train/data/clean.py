"""Missing, malformed and repeated rows: found, counted, and refused, dropped or repaired."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from train.data.dataset import Batch
from train.errors import UserError

Policy = Literal["error", "drop", "repair"]


def find_faults(columns: Batch, num_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Which rows miss a value, and which are malformed.

    Args:
        columns: ``inputs`` [R, ...] (or [R] arrays of unequal length) and ``targets`` [R].
        num_classes: labels must lie below it; None for regression.

    Returns:
        missing: bool [R]; NaN in the inputs or the target.
        malformed: bool [R]; infinite values, a label outside 0 .. num_classes - 1, or a series
            without a step.
    """
    count = len(columns["targets"])
    missing, malformed = np.zeros(count, bool), np.zeros(count, bool)
    for column in columns.values():
        if column.dtype == np.object_:  # rows of unequal length
            missing |= [np.isnan(row).any() for row in column]
            malformed |= [not len(row) or np.isinf(row).any() for row in column]
        elif np.issubdtype(column.dtype, np.floating):
            flat = column.reshape(count, -1)
            missing |= np.isnan(flat).any(1)
            malformed |= np.isinf(flat).any(1)
    if num_classes is not None:
        labels = columns["targets"]
        malformed |= (labels < 0) | (labels >= num_classes)
    return missing, malformed


def treat_faults(
    columns: Batch,
    num_classes: int | None,
    policy: Policy,
    where: str,
    rows: np.ndarray | None = None,
    fix: str | None = None,
) -> tuple[Batch, int, int]:
    """Refuses or drops faulty rows; ``repair`` keeps those whose inputs can be filled in later.

    Args:
        columns: ``inputs`` [R, ...] and ``targets`` [R].
        num_classes: as in :func:`find_faults`.
        policy: what to do with a faulty row.
        where: how the message names the rows.
        rows: their numbers [R] in a split that is too large to be cleaned, for the message.
        fix: what the message advises beside mending the set, where there is no choice of policies.

    Returns:
        columns: the rows that stay.
        missing: how many were left out for a missing value.
        malformed: how many were left out as malformed.

    Raises:
        UserError: under ``error``, naming the first faulty row.
    """
    missing, malformed = find_faults(columns, num_classes)
    if policy == "error" and (missing.any() or malformed.any()):
        first = int(np.argmax(missing | malformed))
        number = first if rows is None else int(rows[first])
        fault, policies = _fault(columns, first, missing, malformed, num_classes)
        advice = ", or " + (fix or f"use --data.missing {policies}") if rows is None else ""
        raise UserError(f"{where}: row {number} {fault}: mend the set{advice}")
    targets = columns["targets"]
    if policy == "repair":  # a target is never invented
        missing &= np.isnan(targets) if targets.dtype.kind == "f" else False
    keep = ~(missing | malformed)
    if not keep.all():
        columns = {name: column[keep] for name, column in columns.items()}
    return columns, int((missing & ~malformed).sum()), int(malformed.sum())


def _fault(
    columns: Batch, row: int, missing: np.ndarray, malformed: np.ndarray, num_classes: int | None
) -> tuple[str, str]:
    """What is wrong with a row and which policies would deal with it."""
    label, count = columns["targets"][row], len(missing)
    if num_classes is not None and not 0 <= label < num_classes:
        note = " (-1 marks unlabelled rows)" if label == -1 else ""
        return (
            f"has label {label}{note}, labels must lie in 0..{num_classes - 1}; "
            f"{malformed.sum()} of {count} rows are malformed",
            "drop",
        )
    ragged = columns["inputs"].dtype == np.object_
    if ragged and not len(columns["inputs"][row]):
        return f"has no steps; at least one is needed, {malformed.sum()} of {count} are bad", "drop"
    if missing[row]:
        kind, rows, fix = "missing (NaN)", missing, "drop" if ragged else "drop or repair"
    else:
        kind, rows, fix = "infinite", malformed, "drop"
    return f"has {kind} values, as {rows.sum()} of {count} rows have; all must be finite", fix


def row_digests(columns: Batch, names: Sequence[str]) -> list[bytes]:
    """16 bytes a row that agree exactly when the named columns do, bit for bit."""
    arrays = [np.ascontiguousarray(columns[name]) for name in names]
    digests = []
    for row in zip(*arrays, strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for value in row:
            digest.update(value.tobytes())
        digests.append(digest.digest())
    return digests


def fresh_rows(columns: Batch, held_out: set[bytes], seen: set[bytes]) -> tuple[Batch, int, int]:
    """Train rows that neither occur in the eval split nor repeat an earlier row.

    A row counts as held out when its inputs are (whatever its target says), as repeated when
    inputs and target are.

    Args:
        columns: the train split.
        held_out: digests of the eval split's inputs.
        seen: digests of earlier train rows; those that stay are added.

    Returns:
        columns, how many were removed as repeated, how many as held out.
    """
    count = len(columns["targets"])
    keep, repeated, leaked = np.ones(count, bool), 0, 0
    inputs = row_digests(columns, ["inputs"])
    both = row_digests(columns, ["inputs", "targets"])
    for i in range(count):
        if inputs[i] in held_out:
            leaked += 1
        elif both[i] in seen:
            repeated += 1
        else:
            seen.add(both[i])
            continue
        keep[i] = False
    if not keep.all():
        columns = {name: column[keep] for name, column in columns.items()}
    return columns, repeated, leaked


def without_repeats(train: Batch, held_out: Batch, count: dict[str, int]) -> tuple[Batch, Batch]:
    """One set's splits without repeated train rows and without those that are held out.

    Args:
        train: ``inputs`` and ``targets``, and whatever else its rows have.
        held_out: likewise; all its rows stay.
        count: fields of :class:`train.data.dataset.Cleaning`; those on repeats are written.
    """
    digests = row_digests(held_out, ["inputs"])
    count["eval_duplicates"] = len(digests) - len(set(digests))
    train, count["train_duplicates"], count["train_in_eval"] = fresh_rows(
        train, set(digests), set()
    )
    return train, held_out


def repair(
    train: np.ndarray, others: Sequence[np.ndarray], categories: Sequence[int], where: str
) -> int:
    """Fills NaN in place with the train split's median or most frequent code; returns how many.

    Args:
        train: inputs [R, ...] that give the values, repaired too.
        others: further inputs of the same kind to repair with the same values.
        categories: positions on the last axis that hold codes.
        where: how the message names the set.

    Raises:
        UserError: when a feature is missing in every train row.
    """
    gone = np.isnan(train).all(0)
    if gone.any():
        raise UserError(
            f"{where}: feature {np.argwhere(gone)[0].tolist()} is missing in every row, so nothing "
            "can repair it; remove it from the set"
        )
    fill = np.nanmedian(train, axis=0)
    for i in categories:
        codes = train[:, i][~np.isnan(train[:, i])]
        fill[..., i] = np.bincount(codes.astype(int)).argmax()  # the smallest code of a tie
    filled = 0
    for inputs in (train, *others):
        holes = np.isnan(inputs)
        filled += int(holes.sum())
        np.copyto(inputs, np.broadcast_to(fill, inputs.shape), where=holes, casting="same_kind")
    return filled
