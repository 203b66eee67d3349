"""What needs several devices: a process of its own, with eight simulated ones.

    python -m tests.train.parallel_worker equal RECIPE [FIELD ...]
    python -m tests.train.parallel_worker answers RECIPE [FIELD ...]
    python -m tests.train.parallel_worker moved FOLDER RECIPE [FIELD ...]
    python -m tests.train.parallel_worker placed
    python -m tests.train.parallel_worker draws
    python -m tests.train.parallel_worker sent

It fails where something is not as it should be.
"""

import os
import sys
from pathlib import Path
from typing import Any

from train.simulated import DEVICES, give_threads

os.environ[DEVICES] = "8"  # before JAX is imported
give_threads()
MODES: dict[str, tuple[Any, str | None]] = {  # name -> mode and mesh
    "pmap": ("pmap", None),
    "shard_map": ("shard_map", None),
    "mesh": ("mesh", "data=2,fsdp=2,tensor=2"),
}
LIVES: tuple[tuple[Any, str | None, int], ...] = (  # of one run: mode, mesh, devices
    ("mesh", "data=2,fsdp=2,tensor=2", 8),
    ("shard_map", None, 4),
    ("jit", None, 1),
    ("pmap", None, 8),
    ("mesh", "data=2,tensor=2", 4),
)
STEPS = 20


def equal(name: str, *fields: str) -> None:
    """Twenty steps of a recipe are those on one device."""
    from tests.close import assert_close
    from train.parallel import layout

    task = task_of(name, *fields)
    expected = followed(task, layout("jit"))
    for mode, where in MODES.items():
        assert_close({mode: followed(task, layout(*where))}, {mode: expected})


def answers(name: str, *fields: str) -> None:
    """An evaluation is that on one device, though its batches do not divide by eight."""
    from flax import nnx

    from tests.close import assert_close
    from train.evaluation import compile_eval, evaluate
    from train.parallel import layout
    from train.step import Program

    task = task_of(name, *fields)

    def evaluated(where) -> dict[str, Any]:
        program = Program(task.build(nnx.Rngs(0)), where)
        compile_eval(program, task)
        return evaluate(program, task)

    expected = evaluated(layout("jit"))
    for mode, where in MODES.items():
        assert_close({mode: evaluated(layout(*where))}, {mode: expected})


def moved(folder: str, name: str, *fields: str) -> None:
    """A run that was saved, and went on on other devices, four times, ends as on one."""
    import jax

    from tests.close import assert_close
    from train.checkpoint import Checkpoints
    from train.parallel import layout

    task = task_of(name, *fields)
    checkpoints = Checkpoints(Path(folder), task.recipe.checkpoint, "loss", "min")
    each = STEPS // len(LIVES)
    for life, (mode, mesh, count) in enumerate(LIVES):
        program, batches = compiled(task, layout(mode, mesh, jax.devices()[:count]))
        if life:
            found = checkpoints.restore(program.paths, program.leaves, print)
            assert found is not None and found.step == life * each
            program.leaves = found.leaves
            batches.set_state(found.progress["data"])
        for _ in range(each):
            program.train(program.put(next(batches)))
        progress = {"data": batches.get_state()}
        checkpoints.save((life + 1) * each, program.paths, program.leaves, progress)
        checkpoints.wait()
    checkpoints.close()
    assert_close(parameters(program), followed(task, layout("jit"))["parameters"])


def placed() -> None:
    """Parameters are cut by the names of their axes; what does not divide is refused by name."""
    import jax
    import pytest
    from jax.sharding import PartitionSpec

    from train.errors import UserError
    from train.parallel import check_batch, layout

    small = ["--model.num-layers", "1", "--model.dim", "24", "--model.num-heads", "2"]
    task = task_of("bible-gpt", *small)
    program, _ = compiled(task, layout("mesh", "data=2,fsdp=2,tensor=2"))
    leaves: list[Any] = program.placed  # whose shardings are named ones
    specs = {p: leaf.sharding.spec for p, leaf in zip(program.paths, leaves, strict=True)}
    block, cut = "model/blocks/blocks/0", PartitionSpec("fsdp", None, "tensor")
    assert specs[f"{block}/attention/qkv/kernel"] == cut
    assert specs[f"{block}/attention/out/kernel"] == PartitionSpec("tensor", "fsdp")
    assert specs[f"{block}/attention/qkv/bias"] == PartitionSpec(None, "tensor")
    assert specs[f"{block}/attention/out/bias"] == PartitionSpec(None)
    momentum = [spec for path, spec in specs.items() if path.endswith("attention/qkv/kernel")]
    assert len(momentum) > 1 and set(momentum) == {cut}
    assert specs["rngs/dropout/key"] == PartitionSpec()
    with pytest.raises(UserError, match=r"batch_size=12 cannot be shared by 8 .* a multiple of 8"):
        check_batch(layout("shard_map"), 12, pieces=1)
    with pytest.raises(UserError, match=r"--mesh tensor=5 .* the 24 of axis 'heads' of model/"):
        compiled(task, layout("mesh", "tensor=5", jax.devices()[:5]))


def draws() -> None:
    """Eight devices draw eight masks with keys of their own, and for shared rows those of one."""
    import jax
    import numpy as np
    from jax.sharding import PartitionSpec

    from train.layouts import DATA
    from train.parallel import ShardMap

    where, key = ShardMap(jax.devices()), jax.random.key(0)

    def drawn(function):
        return jax.shard_map(
            function, mesh=where.mesh, in_specs=(), out_specs=PartitionSpec(DATA), check_vma=False
        )()

    masks = drawn(lambda: jax.random.bernoulli(where.sync.own(key), shape=(1, 64)))
    assert len(np.unique(masks, axis=0)) == 8
    noise = drawn(lambda: where.sync.draw(jax.random.normal, key, (2, 5)))
    assert np.array_equal(noise, jax.random.normal(key, (16, 5)))
    # Two pieces of eight rows: on each device one row of the first, then one of the second.
    pieces = drawn(lambda: where.sync.draw(jax.random.normal, key, (2, 5), pieces=2))
    in_order = np.asarray(pieces).reshape(8, 2, 5).swapaxes(0, 1).reshape(16, 5)
    assert np.array_equal(in_order, jax.random.normal(key, (16, 5)))


def sent() -> None:
    """What a step of a scanned GPT sends under each mesh, as `docs/parallel.md` has it."""
    import jax

    from train.collectives import collectives
    from train.parallel import layout

    layers, width, rows, window = 3, 32, 16, 16
    fields = f"--model.dim {width} --model.num-layers {layers} --model.num-heads 8 --model.scan "
    fields += f"--model.remat --optim.name adamw --batch-size {rows} --task.window {window}"
    task: Any = task_of("bible-gpt", *fields.split())
    matrices, vectors = layers * 12 * width**2, (layers * 13 + 2) * width
    words, positions = task.model_config.vocab_size * width, task.model_config.context * width
    scalars = 256  # bytes: metrics and norms of gradients

    def found(mesh: str):
        program, _ = compiled(task, layout("mesh", mesh, jax.devices()))
        return collectives(program.train_text())

    # All gradients once; of the words' table that of the lookup, and that of the output layer. A
    # CPU has no reduce-scatter: it sums all and takes its piece.
    gradients = 4 * (matrices + vectors + 2 * words + window * width)
    by_data, by_fsdp, by_tensor = (found(f"{axis}=8") for axis in ("data", "fsdp", "tensor"))
    assert by_data.keys() == {"all-reduce"}
    assert 0 <= by_data["all-reduce"].bytes - gradients < scalars
    # Each matrix of a layer when it is read, forwards and backwards.
    assert by_fsdp.keys() == {"all-gather", "all-reduce"}
    assert by_fsdp["all-gather"].count == 2 * 4 * layers + 2
    assert by_fsdp["all-gather"].bytes == 4 * (2 * matrices + words + positions)
    assert 0 <= by_fsdp["all-reduce"].bytes - gradients < scalars
    # Two a layer each way, and attention's once more where it is computed again; the positions,
    # whose table is cut, are looked up once.
    activations = 4 * rows * window * width
    assert by_tensor.keys() == {"all-reduce"}
    looked_up = 4 * window * width
    expected = (2 + 1 + 2) * layers * activations + looked_up
    assert 0 <= by_tensor["all-reduce"].bytes - expected < scalars


def task_of(name: str, *fields: str):
    import dataclasses

    from tests.train import tiny
    from train import loop
    from train.data import sequences

    sequences.MAX_BUCKETS = 2  # a step is compiled for each, in every mode
    return loop.build(dataclasses.replace(tiny.recipe(name, *fields), steps=STEPS))[0]


def compiled(task, where):
    from flax import nnx

    from train.data import train_batches
    from train.step import Program

    recipe = task.recipe
    program = Program(task.build(nnx.Rngs(recipe.seed)), where, task.pieces)
    batches = train_batches(task.data.train, batch_size=recipe.batch_size, seed=recipe.seed)
    program.compile_train(task.train_step, *batches.examples())
    return program, batches


def parameters(program):
    """All parameters and statistics, one after the other."""
    import jax
    import numpy as np
    from flax import nnx

    state = nnx.state(program.objects(), (nnx.Param, nnx.BatchStat))
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state)])


def followed(task, where) -> dict[str, Any]:
    """The metrics of twenty steps, and all parameters after them."""
    import numpy as np

    program, batches = compiled(task, where)
    metrics = [program.train(program.put(next(batches))) for _ in range(STEPS)]
    return {
        **{name: np.array([float(step[name]) for step in metrics]) for name in metrics[0]},
        "parameters": parameters(program),
    }


if __name__ == "__main__":
    commands: dict[str, Any] = {
        function.__name__: function for function in (equal, answers, moved, placed, draws, sent)
    }
    commands[sys.argv[1]](*sys.argv[2:])
