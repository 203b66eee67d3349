"""Model families written from scratch in JAX and Flax NNX: the mathematics, the layers, the models.

    model = zoo.create("convnet-32-64", rngs=nnx.Rngs(0))
    logits = nnx.view(model, deterministic=True)(images)

Names are loaded when they are first used, so that `import zoo` (and every command line that only
lists things) stays fast and does not start JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.functional.ops import Ops
    from zoo.registry import build, config, create, names
    from zoo.summary import Summary, summarize

_HOME = {
    "Ops": "zoo.functional.ops",
    "Summary": "zoo.summary",
    "build": "zoo.registry",
    "config": "zoo.registry",
    "create": "zoo.registry",
    "names": "zoo.registry",
    "summarize": "zoo.summary",
}

__all__ = ["Ops", "Summary", "build", "config", "create", "names", "summarize"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}; it has {', '.join(_HOME)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
