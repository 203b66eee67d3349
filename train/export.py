"""Trained models for other programs: StableHLO for any XLA runtime, safetensors for weights."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax import export

from train.config import to_json
from train.step import Objects
from train.task import Task

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(task: Task, objects: Objects, out: Path) -> None:
    """Writes the whole prediction, raw inputs to answers, with the weights inside.

    The batch size is symbolic. To load it, only JAX is needed:

        from jax import export
        predict = export.deserialize(open("model.stablehlo", "rb").read()).call
    """
    graphdef, state = nnx.split(objects)
    predict = jax.jit(lambda inputs: task.predict(nnx.merge(graphdef, state), inputs))
    (batch,) = export.symbolic_shape("B")
    example = task.query(task.data.eval.gather(np.zeros(1, np.int64)))
    inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), example)
    out.write_bytes(export.export(predict, platforms=PLATFORMS)(inputs).serialize())


def safetensors(task: Task, objects: Objects, out: Path) -> None:
    """Writes every parameter and statistic under its path, with the config as metadata.

    Where weights are averaged, these are the averages, which is what `eval` measures.
    """
    from safetensors.numpy import save_file

    state = nnx.state(task.evaluated(objects), (nnx.Param, nnx.BatchStat))
    flat = nnx.to_flat_state(state)
    arrays = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}
    save_file(arrays, out, metadata={"config": json.dumps(to_json(task.recipe))})


FORMATS: dict[str, Callable[[Task, Objects, Path], None]] = {
    "stablehlo": stablehlo,
    "safetensors": safetensors,
}
