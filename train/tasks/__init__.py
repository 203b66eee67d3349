"""The kinds of learning problem, one file each: a config and the task that it configures."""

import sys
from pathlib import Path

import zoo
from train.config import Recipe
from train.task import Task


def make_task(recipe: Recipe, ops: zoo.Ops, folder: Path | None = None) -> Task:
    """The task of ``recipe.task`` on its data: ``XConfig`` configures the class ``X`` beside it.

    Args:
      recipe: which task, and on what.
      ops: the implementations that its models use.
      folder: of a run that is opened again.
    """
    task = task_class(recipe)
    return task(recipe, task.load(recipe, folder), ops)


def task_class(recipe: Recipe) -> type[Task]:
    """The class that ``recipe.task`` configures."""
    config = type(recipe.task)
    return getattr(sys.modules[config.__module__], config.__name__.removesuffix("Config"))
