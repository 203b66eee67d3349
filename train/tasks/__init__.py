"""The kinds of learning problem, one file each: a config and the task that it configures."""

import sys

import zoo
from train.config import Recipe
from train.data import Dataset
from train.task import Task


def make_task(recipe: Recipe, data: Dataset, ops: zoo.Ops) -> Task:
    """The task of ``recipe.task``: ``XConfig`` configures the class ``X`` beside it."""
    config = type(recipe.task)
    return getattr(sys.modules[config.__module__], config.__name__.removesuffix("Config"))(
        recipe, data, ops
    )
