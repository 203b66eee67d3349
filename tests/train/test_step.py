"""The compiled step: what it changes, what it leaves alone, and that it is compiled once."""

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from tests.close import assert_close
from tests.train import tiny
from train import loop
from train.data import to_device, train_batches
from train.evaluation import compile_eval, evaluate
from train.step import Program
from train.sync import Sync
from train.task import Task


@contextmanager
def compilations() -> Iterator[Counter[str]]:
    """Counts what JAX traces, lowers and compiles inside."""
    seen: Counter[str] = Counter()

    def listen(event: str, duration_secs: float, **kwargs) -> None:
        if event.startswith("/jax/core/compile/"):
            seen[event] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def compiled(name: str, *more: str) -> tuple[Task, Program, Iterator]:
    """A task, its compiled program and its training batches on the device."""
    recipe = tiny.recipe(name, *more)
    task, objects = loop.build(recipe)
    program = Program(objects)
    batches = train_batches(task.data.train, batch_size=recipe.batch_size, seed=recipe.seed)
    program.compile_train(task.train_step, task.data.train.gather(np.arange(recipe.batch_size)))
    compile_eval(program, task)
    return task, program, to_device(batches)


@pytest.fixture(scope="module")
def resnet() -> tuple[Task, Program, Iterator]:
    return compiled("digits-resnet")


def arrays(program: Program) -> dict[str, np.ndarray]:
    """Every array by its path; random keys as the integers they are made of."""
    plain = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in program.leaves
    ]
    return {p: np.array(leaf) for p, leaf in zip(program.paths, plain, strict=True)}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {path for path in before if not np.array_equal(before[path], after[path])}


def test_a_training_step_moves_all_that_training_owns(resnet):
    _, program, batches = resnet
    before = arrays(program)
    # The learning rate of step 0 is 0, and where the last scale of a block starts at 0, nothing
    # flows back through its branch until that has moved.
    for _ in range(4):
        metrics = program.train(next(batches))
    moved = changed(before, arrays(program))
    fixed = {path for path in before if path.startswith("standardize/")}
    fixed |= {path for path in before if path.endswith(("/key", "/tag"))}
    assert moved == set(before) - fixed
    assert {"model/stem/norm/mean", "model/stem/norm/var", "optimizer/step"} <= moved
    assert {"rngs/augment/count", "rngs/dropout/count"} <= moved
    assert set(metrics) == {
        f"train/{n}" for n in ("loss", "accuracy", "grad_norm", "learning_rate")
    }


def test_an_evaluation_changes_nothing(resnet):
    task, program, _ = resnet
    before = arrays(program)
    first, second = evaluate(program, task), evaluate(program, task)
    assert not changed(before, arrays(program))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert len(first["target"]) == len(task.data.eval)  # 50 in batches of 30: padding is taken off
    assert np.array_equal(first["target"], task.data.eval.arrays()["targets"])


def test_batch_norm_takes_the_moments_of_its_batch(resnet):
    task, program, batches = resnet
    batch, objects = jax.device_put(next(batches)), program.objects()
    norm = objects["model"].stem.norm
    before = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
    program.train(batch)
    key = objects["rngs"].augment()
    inputs = task.augment(key, batch)["inputs"]
    x = objects["model"].stem.conv(task.standardized(objects, inputs))
    moments = x.mean((0, 1, 2)), x.var((0, 1, 2))
    after = program.objects()["model"].stem.norm
    for old, moment, new in zip(before, moments, (after.mean, after.var), strict=True):
        assert_close(new[...], 0.9 * old + 0.1 * np.asarray(moment))


def test_a_step_in_flight_is_not_ready(resnet):
    """What `data_wait_fraction` rests on: JAX says whether a result is there without waiting."""
    _, program, batches = resnet
    batch = next(batches)
    for _ in range(20):
        metrics = program.train(batch)
    assert not loop._is_done(metrics)
    jax.block_until_ready(metrics)
    assert loop._is_done(metrics)


def test_nothing_is_compiled_after_the_first_steps(resnet):
    task, program, batches = resnet
    program.train(next(batches))
    evaluate(program, task)
    with compilations() as seen:
        for step in range(6):
            jax.device_get(program.train(next(batches)))
            if step % 2:
                evaluate(program, task)
    assert not seen
    with compilations() as seen:  # the listener does hear a compilation
        jax.jit(lambda x: x * 3 + 1)(jnp.arange(7)).block_until_ready()
    assert seen


def test_a_longer_run_compiles_no_more_than_a_short_one(tmp_path):
    def events(steps: int) -> int:
        recipe = tiny.recipe("digits-mlp", f"--steps {steps}")
        with compilations() as seen:
            loop.run(recipe, workdir=tmp_path / str(steps), console=Console(file=io.StringIO()))
        return seen["/jax/core/compile/backend_compile_duration"]

    events(4)  # what the first run of a process compiles on the side
    assert events(16) == events(8)


def test_python_runs_once_a_step_kind(resnet):
    """Dispatch is one call of a compiled program: the step's Python is not run again."""
    task, program, batches = resnet
    calls = 0

    def counted(objects, batch, sync):
        nonlocal calls
        calls += 1
        return task.train_step(objects, batch, sync)

    again = Program(program.objects())
    again.compile_train(counted, next(batches))
    assert calls == 1
    for _ in range(5):
        again.train(next(batches))
    assert calls == 1
    assert again.compile_seconds > 0
    assert again.train_flops and again.train_flops > 1e6


def test_a_batch_of_another_shape_is_an_error(resnet):
    _, program, batches = resnet
    batch = next(batches)
    short = {name: values[:-1] for name, values in batch.items()}
    for call in (program.train, program.evaluate):
        with pytest.raises(TypeError, match=r"shape|aval|structure|compiled"):
            call(short)
    program.train(batch)  # nothing was donated to the step that did not run


def test_objects_are_copies_on_both_ways(resnet):
    task, program, batches = resnet
    taken = program.objects()
    mine = {p: np.array(leaf[...]) for p, leaf in nnx.to_flat_state(nnx.state(taken, nnx.Param))}
    other = Program(taken)
    other.compile_train(task.train_step, next(batches))
    other.train(next(batches))
    program.train(next(batches))
    # Both programs donated their buffers; those of `taken` are alive and as they were.
    for path, leaf in nnx.to_flat_state(nnx.state(taken, nnx.Param)):
        assert np.array_equal(leaf[...], mine[path])


def test_paths_name_the_leaves_beside_them():
    """Twelve children in a list: an order by text (0, 1, 10, 11, 2) would mix them up."""

    class Many(nnx.Module):
        def __init__(self):
            self.rows = nnx.List([nnx.Param(jnp.full(1, float(i))) for i in range(12)])

    program = Program({"many": Many(), "alone": nnx.Param(jnp.full(1, 99.0))})
    found = {path: float(leaf[0]) for path, leaf in arrays(program).items()}
    assert found == {f"many/rows/{i}": float(i) for i in range(12)} | {"alone": 99.0}


def test_sync_is_the_identity_on_one_device():
    tree = {"a": jnp.ones(2)}
    assert Sync()(tree) is tree


@pytest.mark.parametrize("name", ["digits-convnet", "digits-resnet"])
def test_graph_mode_and_tree_mode_agree(name):
    found = []
    for graph in (True, False):
        with nnx.set_graph_mode(graph):
            _, program, batches = compiled(name, "--optim.ema-decay 0.5")
            losses = [float(program.train(next(batches))["train/loss"]) for _ in range(3)]
            found.append((losses, arrays(program)))
    assert found[0][0] == found[1][0]
    assert found[0][1].keys() == found[1][1].keys()
    assert not changed(found[0][1], found[1][1])
