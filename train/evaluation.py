"""The outputs of a model for every held-out example, in batches of one shape."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from train.data import eval_batches
from train.step import AnyBatch, Program
from train.task import Outputs, Task


def compile_eval(program: Program, task: Task) -> None:
    """Compiles the evaluation step for the one shape that every evaluation batch has."""
    first = next(iter(eval_batches(task.data.eval, batch_size=_batch_size(program, task))))
    first.pop("mask")
    program.compile_eval(task.eval_step, first)


def evaluate(program: Program, task: Task) -> Outputs:
    """The outputs of every held-out example, in order, by a compiled evaluation step."""
    return outputs_of(program.evaluate, task, _batch_size(program, task))


def outputs_of(
    answer: Callable[[AnyBatch], dict[str, Any]], task: Task, batch_size: int
) -> Outputs:
    """What ``answer`` gives of every held-out example, a batch at a time, in order."""
    rows: list[dict[str, Any]] = []
    for batch in eval_batches(task.data.eval, batch_size=batch_size):
        mask = batch.pop("mask")
        outputs = jax.device_get(answer(batch))
        rows.append({name: values[mask] for name, values in outputs.items()})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _batch_size(program: Program, task: Task) -> int:
    """The recipe's, or a little more, so that every device has the same share."""
    return program.layout.whole(task.recipe.eval_batch_size)
