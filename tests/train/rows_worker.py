"""The command line, with a note of every row that training and evaluation ask of a source.

python -m tests.train.rows_worker FILE run RECIPE ...
"""

import json
import sys
from pathlib import Path
from typing import Any

from train.data import pipeline
from train.data.dataset import ArraySource

NOTES: dict[str, list[int]] = {"train": [], "eval": []}


class Noted(ArraySource):
    """A source that writes down what it is asked for."""

    def __init__(self, source: Any, kind: str):
        super().__init__(source.columns)
        self.kind = kind

    def gather(self, indices):
        if indices.any():  # a batch of row 0 alone is asked for its shape
            NOTES[self.kind] += indices.tolist()
        return super().gather(indices)


def noted(kind: str, function: Any) -> Any:
    return lambda source, **keywords: function(Noted(source, kind), **keywords)


if __name__ == "__main__":
    # Before train.data hands them on, which it does when they are first asked for.
    pipeline.train_batches = noted("train", pipeline.train_batches)
    pipeline.eval_batches = noted("eval", pipeline.eval_batches)
    from train.cli import main

    code = main(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(NOTES))
    sys.exit(code)
