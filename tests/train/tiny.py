"""Every recipe at a size that compiles and runs in seconds, as the fields one would type."""

from train.cli import run_options
from train.config import Recipe
from train.options import parse

_SHORT = "--steps 8 --eval-every 4 --checkpoint.every 2 --log-every 1 --task.baseline none"
_DIGITS = (
    f"{_SHORT} --batch-size 16 --eval-batch-size 30 "
    "--data.train-split train[:200] --data.eval-split test[:50]"
)
_FIELDS = {
    "linear-diabetes": f"{_SHORT} --batch-size 50",
    "logistic-cancer": f"{_SHORT} --batch-size 50",
    "digits-mlp": f"{_DIGITS} --model.hidden-dims 16 12",
    "digits-convnet": f"{_DIGITS} --model.conv-dims 4 4 --model.dense-dim 16",
    "digits-resnet": f"{_DIGITS} --model.stage-sizes 1 1 --model.width 4",
}


def fields(name: str, *more: str) -> list[str]:
    """The command-line fields that make recipe ``name`` tiny, and the words of ``more``."""
    return " ".join([_FIELDS[name], *more]).split()


def recipe(name: str, *more: str) -> Recipe:
    """The recipe that ``run NAME`` makes of :func:`fields`."""
    kind, default = run_options(name)
    return parse(kind, "run", fields(name, *more), default).recipe
