"""The outputs of a model for every held-out example, in batches of one shape."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from train.data import eval_batches
from train.step import AnyBatch, Program
from train.task import Outputs, Task


def compile_eval(program: Program, task: Task) -> None:
    """Compiles the evaluation step for the one shape that every evaluation batch has."""
    first = next(_batches(task, *_shape(program, task)))
    program.compile_eval(task.eval_step, first)


def evaluate(program: Program, task: Task) -> Outputs:
    """The outputs of every held-out example, in order, by a compiled evaluation step."""
    return outputs_of(program.evaluate, task, *_shape(program, task))


def outputs_of(
    answer: Callable[[AnyBatch], dict[str, Any]],
    task: Task,
    batch_size: int,
    positions: np.ndarray | None = None,
) -> Outputs:
    """What ``answer`` gives of every held-out example, a batch at a time, in order.

    Args:
      answer: takes the rows of a batch at ``positions``, and gives outputs for all its rows.
      task: whose examples.
      batch_size: rows of a batch.
      positions: those that this process reads; all by default.
    """
    rows = [jax.device_get(answer(batch)) for batch in _batches(task, batch_size, positions)]
    # The last batch is filled up with rows that do not count.
    held_out = len(task.data.eval)
    return {name: np.concatenate([row[name] for row in rows])[:held_out] for name in rows[0]}


def _batches(
    task: Task, batch_size: int, positions: np.ndarray | None
) -> Iterator[dict[str, np.ndarray]]:
    for batch in eval_batches(task.data.eval, batch_size=batch_size, positions=positions):
        batch.pop("mask")
        yield batch


def _shape(program: Program, task: Task) -> tuple[int, np.ndarray]:
    """The recipe's batch, or a little more, so that every device has the same share of it."""
    batch_size = program.layout.whole(task.recipe.eval_batch_size)
    return batch_size, program.layout.positions(batch_size)
