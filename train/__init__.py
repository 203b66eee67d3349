"""What makes a model learn: tasks, steps, data, checkpoints, reports, recipes.

    import train
    result = train.run(train.RECIPES["digits-convnet"], workdir="runs/digits")

Names are loaded on first use, so that listing recipes does not start JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.loop import run
    from train.recipes import RECIPES

_HOME = {"RECIPES": "train.recipes", "run": "train.loop"}

__all__ = ["RECIPES", "run"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'train' has no attribute {name!r}; it has {', '.join(_HOME)}")
    return getattr(importlib.import_module(_HOME[name]), name)
