"""What a recipe is: one frozen tree of dataclasses that names everything a run depends on.

``config.json`` is this tree; :func:`from_json` reads it back over the recipe it came from, so a run
folder alone is enough to rebuild the run.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from train.data import DataConfig
from train.errors import UserError
from train.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a run is saved, and what is kept."""

    every: int = 200  # steps between checkpoints; the last step is always saved
    keep: int = 2  # the newest so many stay, and the best by the recipe's metric beside them

    def __post_init__(self):
        if self.every < 1 or self.keep < 1:
            raise ValueError(f"every={self.every} and keep={self.keep} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Model, data, optimiser and task: with a seed, all that decides the result of a run."""

    name: tyro.conf.Suppress[str]  # the row of RECIPES that this is; chosen, never overridden
    model: Any  # a config of zoo.models; the data decide its input shape and number of outputs
    task: Any  # a config of train.tasks
    data: Any = field(default_factory=DataConfig)  # a config of train.data
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    steps: int = 1000  # parameter updates
    batch_size: int = 64  # examples an update, over all devices
    num_microbatches: int = 1  # pieces a batch is cut into, one after the other, to save memory
    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # parameters are always float32
    eval_every: int = 200  # steps between evaluations; the last step is always evaluated
    eval_batch_size: int = 500  # examples an evaluation step; changes no metric
    log_every: int = 10  # steps between lines of metrics.jsonl
    seed: int = 0  # of parameters, data order, dropout and augmentation, each a stream of its own

    def __post_init__(self):
        for name in ("steps", "batch_size", "num_microbatches", "eval_every", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.log_every < 1:
            raise ValueError(f"log_every={self.log_every} must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.batch_size % self.num_microbatches:
            raise ValueError(
                f"num_microbatches={self.num_microbatches} must divide batch_size={self.batch_size}"
            )


def to_json(config: Any) -> Any:
    """The config as plain JSON values, fields in the order of their declaration."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_json(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def from_json(base: Any, values: Any, where: str = "") -> Any:
    """``base`` with the fields of ``values``; types are taken from ``base``.

    Raises:
      UserError: a field that ``base`` does not have, or a value that it refuses.
    """
    if dataclasses.is_dataclass(base):
        if not isinstance(values, dict):
            raise UserError(f"{where or 'config'} is {values!r}; expected an object with fields")
        known = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
        paths = {f.name for f in dataclasses.fields(base) if f.type in (Path, Path | None)}
        if unknown := sorted(set(values) - set(known)):
            raise UserError(
                f"{where or 'config'} has no field {unknown[0]!r}; it has {', '.join(known)}"
            )
        changes = {k: from_json(known[k], v, f"{where}.{k}".strip(".")) for k, v in values.items()}
        try:
            changes |= {k: Path(changes[k]) for k in paths & changes.keys() if changes[k]}
            return dataclasses.replace(base, **changes)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where or 'config'}: {error}") from error
    if isinstance(values, list):
        return tuple(from_json(None, item) for item in values)
    typed = type(base) in (int, float, str, bool) and values is not None
    if typed and type(values) is not type(base):
        raise UserError(f"{where} is {values!r}; expected a value like {base!r}")
    return values


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """``field: ours, theirs`` for every leaf in which two JSON trees differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = list(ours) + [k for k in theirs if k not in ours]
        pairs = [(k, ours.get(k), theirs.get(k)) for k in keys]
        return [d for k, a, b in pairs for d in differences(a, b, f"{where}.{k}".strip("."))]
    return [] if ours == theirs else [f"{where}: {ours!r}, {theirs!r}"]
