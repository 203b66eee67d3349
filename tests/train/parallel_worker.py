"""Runs recipes under every mode on eight simulated devices, in a process of its own.

    python -m tests.train.parallel_worker RECIPE [FIELD ...]

prints, for every mode, how far twenty steps are from those on one device.
"""

import json
import os
import sys

os.environ["JAX_NUM_CPU_DEVICES"] = "8"  # before JAX is imported
MODES = {  # name -> mode and mesh
    "pmap": ("pmap", None),
    "shard_map": ("shard_map", None),
    "mesh": ("mesh", "data=2,fsdp=2,tensor=2"),
}
STEPS = 20


def main(name: str, *fields: str) -> None:
    import dataclasses

    from tests.train import tiny
    from train import loop
    from train.parallel import layout

    recipe = dataclasses.replace(tiny.recipe(name, *fields), steps=STEPS)
    task, _ = loop.build(recipe)
    expected = Followed(task, layout("jit"))
    print(
        json.dumps(
            {n: Followed(task, layout(*mode)).far_from(expected) for n, mode in MODES.items()}
        )
    )


class Followed:
    """What twenty steps and an evaluation of a task came to."""

    def __init__(self, task, where):
        import jax
        import numpy as np
        from flax import nnx

        from train import loop
        from train.data import train_batches
        from train.step import Program

        recipe = task.recipe
        program = Program(task.build(nnx.Rngs(recipe.seed)), where, task.pieces)
        batches = train_batches(task.data.train, batch_size=recipe.batch_size, seed=recipe.seed)
        program.compile_train(task.train_step, *batches.examples())
        loop.compile_eval(program, task)
        metrics = [program.train(program.put(next(batches))) for _ in range(STEPS)]
        self.metrics = {
            name: np.array([float(step[name]) for step in metrics]) for name in metrics[0]
        }
        self.arrays = [
            np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
            for leaf in program.leaves
        ]
        size = where.whole(recipe.eval_batch_size)
        self.outputs = loop.evaluate(program.evaluate, task, size)
        self.paths = program.paths

    def far_from(self, other: "Followed") -> dict[str, float]:
        """The largest relative differences: of a metric, of an array and of an output."""
        return {
            "metrics": max(_far(self.metrics[name], x) for name, x in other.metrics.items()),
            "arrays": max(map(_far, self.arrays, other.arrays)),
            "outputs": max(_far(self.outputs[name], x) for name, x in other.outputs.items()),
        }


def _is_key(leaf) -> bool:
    import jax

    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _far(x, wanted) -> float:
    """`‖x - wanted‖ / ‖wanted‖`."""
    import numpy as np

    x, wanted = np.asarray(x, np.float64), np.asarray(wanted, np.float64)
    return float(np.linalg.norm(x - wanted) / max(np.linalg.norm(wanted), 1e-30))


if __name__ == "__main__":
    main(*sys.argv[1:])
