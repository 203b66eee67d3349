"""The summary against published and hand-counted costs."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax

import zoo
from zoo.layers import BatchNorm, ConvTranspose, Dropout, Linear


def summarize(name, shape, **settings):
    model = nnx.eval_shape(lambda: zoo.create(name, rngs=nnx.Rngs(0)))
    return zoo.summarize(model, shape, **settings)


@pytest.mark.parametrize("graph", [True, False])
def test_convnet_by_hand(graph):
    with nnx.set_graph_mode(graph):
        summary = summarize("convnet-32-64", (1, 28, 28, 1))
    by_part = {
        "convs[0]": (320, 2 * 28 * 28 * 9 * 32),
        "convs[1]": (18_496, 2 * 14 * 14 * 9 * 32 * 64),
        "dense": (401_536, 2 * 7 * 7 * 64 * 128),
        "dropout": (0, 0),
        "classifier": (1_290, 2 * 128 * 10),
    }
    rows = {row.path: (row.parameters, row.flops) for row in summary.rows}
    totals = tuple(map(sum, zip(*by_part.values(), strict=True)))
    assert rows == {"": totals, **by_part}
    assert (summary.parameters, summary.flops) == totals
    assert list(rows) == ["", *by_part]  # in the order of calls
    assert summary.bytes == 4 * 421_642
    assert summary.rows[1].output == "[1, 28, 28, 32]"


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [("resnet18", 1_814_073_344), ("resnet34", 3_663_761_408), ("resnet50", 4_089_184_256)],
)
def test_published_multiply_adds_of_resnets(name, multiply_adds):
    summary = summarize(name, (1, 224, 224, 3))
    assert summary.flops == 2 * multiply_adds


def test_statistics_are_counted_apart():
    summary = zoo.summarize(BatchNorm(5), (2, 5))
    assert (summary.parameters, summary.statistics, summary.bytes) == (10, 10, 80)


def test_a_part_contains_what_is_inside_it():
    rows = {row.path: row for row in summarize("resnet18-cifar", (2, 32, 32, 3), depth=3).rows}
    block, inside = rows["blocks[2]"], [rows[f"blocks[2].{p}"] for p in ("conv1", "conv2")]
    shortcut = rows["blocks[2].shortcut"]
    assert block.flops == sum(row.flops for row in inside) + shortcut.flops
    assert block.parameters == sum(row.parameters for row in inside) + shortcut.parameters
    assert rows["blocks[2].conv1.conv"].kind == "Conv"
    assert block.output == "[2, 16, 16, 128]"


def test_depth_limits_the_rows():
    assert [row.path for row in summarize("mlp", (1, 28, 28, 1), depth=0).rows] == [""]
    assert len(summarize("resnet18", (1, 64, 64, 3), depth=1).rows) == 1 + 1 + 8 + 1


def test_a_transposed_convolution_counts_each_tap_of_each_input_once(rngs):
    layer = nnx.eval_shape(lambda: ConvTranspose(3, 5, 4, strides=2, rngs=nnx.Rngs(0)))
    assert zoo.summarize(layer, (2, 6, 6, 3)).flops == 2 * 2 * 36 * 16 * 3 * 5


def test_loops_branches_and_inner_functions_are_counted():
    class Looping(nnx.Module):
        def __call__(self, x):
            def step(carry, _):
                return jax.jit(lambda a: a @ a)(carry), None

            x, _ = lax.scan(step, x, length=3)
            return lax.cond(x[0, 0] > 0, lambda a: a @ a, lambda a: a, x)

    assert zoo.summarize(Looping(), (4, 4)).flops == (3 + 1) * 2 * 4**3


def test_the_compiler_counts_the_same_for_a_matrix_product(rngs):
    linear = Linear(64, 32, rngs=rngs, use_bias=False)
    x = jnp.ones((8, 64))
    cost = jax.jit(linear.__call__).lower(x).compile().cost_analysis()
    assert zoo.summarize(linear, x).flops == (cost or {})["flops"]


def test_the_classes_are_left_as_they_were():
    before = Dropout.__call__
    zoo.summarize(Dropout(0.5), jax.ShapeDtypeStruct((3,), jnp.float32))
    assert Dropout.__call__ is before


def test_the_table_reads_well():
    text = str(summarize("convnet-32-64", (1, 28, 28, 1)))
    assert "ConvNet: 421,642 parameters, 1.69 MB, 8.48 MFLOPs forward" in text
    (row,) = (line for line in text.splitlines() if "convs[1]" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "convs[1]", "Conv", "[1, 14, 14, 64]", "18,496", "74 kB", "7.23 M",
    ]  # fmt: skip
