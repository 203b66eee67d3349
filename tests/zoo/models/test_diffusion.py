"""The U-Net: its sizes, its time, its classes; parity compares it with `diffusers`."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
import zoo
from tests.close import assert_close
from tests.zoo.compare import count_parameters, random, randomized, run_on_tokens
from zoo.functional.ops import Ops
from zoo.models.diffusion import UNet, UNetConfig

CONFIG = UNetConfig(image_size=8, in_channels=2, width=4, num_groups=2)
CLASSES = dataclasses.replace(CONFIG, num_classes=3)
X, TIMES, LABELS = random(3, 8, 8, 2), jnp.array([0.1, 0.5, 0.9]), jnp.array([0, 2, 1])


def build(config=CONFIG, ops: Ops = Ops()) -> UNet:
    return randomized(lambda: UNet(config, rngs=nnx.Rngs(0), ops=ops))


def test_graph_mode_tree_mode_and_kernels_agree():
    results = []
    for graph, ops in ((True, Ops()), (False, Ops()), (True, kernels.best())):
        with nnx.set_graph_mode(graph):
            results.append(run_on_tokens(build(CLASSES, ops), X, TIMES, LABELS))
    # The bias of the keys has no gradient but rounding.
    zero = {name for name in results[0][1] if name.endswith("qkv.bias")}
    for other in results[1:]:
        assert_close(other[0], results[0][0], kind="composite")
        for name in results[0][1].keys() - zero:
            assert_close(other[1][name], results[0][1][name], kind="composite")
    assert all(jnp.any(gradient != 0) for gradient in results[0][1].values())


def test_at_first_it_says_nothing():
    model = UNet(CLASSES, rngs=nnx.Rngs(0))
    assert_close(model(X, TIMES, LABELS), jnp.zeros_like(X))


def test_time_and_class_are_each_row_s_own():
    model = build(CLASSES)
    out = model(X, TIMES, LABELS)
    assert out.shape == X.shape
    later = model(X, TIMES.at[1].set(0.6), LABELS)
    other = model(X, TIMES, LABELS.at[1].set(0))
    for changed in (later, other):
        assert not jnp.allclose(changed[1], out[1])
        assert_close(changed[::2], out[::2], kind="composite")
    # No label is a label too: one more than there are classes.
    assert_close(model(X, TIMES), model(X, TIMES, jnp.full(3, 3)))
    assert not jnp.allclose(model(X, TIMES), out)


def test_dropout_is_of_training():
    model = build(dataclasses.replace(CONFIG, dropout_rate=0.5))
    with pytest.raises(ValueError, match="needs random numbers"):
        model(X, TIMES)
    draws = [model(X, TIMES, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 1)]
    assert not jnp.allclose(draws[0], draws[1])
    assert_close(nnx.view(model, deterministic=True)(X, TIMES), build()(X, TIMES))


def parameters(**change) -> int:
    config = dataclasses.replace(CONFIG, **change)
    model = nnx.eval_shape(lambda: UNet(config, rngs=nnx.Rngs(0)))
    output = nnx.eval_shape(
        lambda model, x, t: model(x, t, rngs=nnx.Rngs(0)),
        model,
        jnp.zeros((2, config.image_size, config.image_size, config.in_channels)),
        jnp.zeros(2),
    )
    assert output.shape == (2, config.image_size, config.image_size, config.in_channels)
    return count_parameters(model)


def conv(a: int, b: int, window: int = 3) -> int:
    return window * window * a * b + b


def block(a: int, b: int, attention: bool) -> int:
    """Of one block with a time of 16."""
    size = 2 * a + conv(a, b) + 17 * b + 2 * b + conv(b, b) + (conv(a, b, 1) if a != b else 0)
    return size + (2 * b + 3 * b * (b + 1) + b * (b + 1) if attention else 0)


def test_the_sum_of_its_parts():
    """Time 4-16-16, first 8→4; blocks 4→4, halve, 4→8; 8, 8; up 16→8, 12→8, double, 12→4, 8→4."""
    down = block(4, 4, False) + conv(4, 4) + block(4, 8, True)
    middle = block(8, 8, True) + block(8, 8, False)
    up = block(16, 8, True) + block(12, 8, True) + conv(8, 8)
    up += block(12, 4, False) + block(8, 4, False)
    ends = 5 * 16 + 17 * 16 + conv(8, 4) + 8 + conv(4, 8)
    assert parameters() == down + middle + up + ends


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"image_size": 12}, 0),
        ({"num_heads": 2}, 0),
        ({"num_groups": 4}, 0),
        ({"dropout_rate": 0.2}, 0),
        ({"num_classes": 3}, 4 * 16),
        ({"in_channels": 3}, 2 * 9 * 4 * 4 + 4),
        ({"patch_size": 1}, -(2 * 9 * 6 * 4 + 6)),
        ({"attention": (False, False)}, -3 * (16 + 4 * 72)),
        ({"width": 8}, None),
        ({"multipliers": (1, 1)}, None),
        ({"num_blocks": 2}, None),
    ],
)
def test_every_field_counts(change, more):
    found = parameters(**change) - parameters()
    assert found == more if more is not None else found != 0
    if more == 0 and "image_size" not in change and "dropout_rate" not in change:
        changed = build(dataclasses.replace(CONFIG, **change))
        assert not jnp.allclose(changed(X, TIMES), build()(X, TIMES), rtol=1e-3)


def test_the_paper_s_for_cifar10():
    """35.7 million parameters there (Ho et al. 2020, appendix B); each level has its blocks."""
    config = zoo.config("unet-cifar10")
    model = nnx.eval_shape(lambda: UNet(config, rngs=nnx.Rngs(0)))
    assert count_parameters(model) == pytest.approx(35.7e6, rel=0.01)


def test_for_data():
    assert CONFIG.for_data((12, 12, 1), 7).num_classes is None
    found = CLASSES.for_data((12, 12, 1), 7)
    assert (found.image_size, found.in_channels, found.num_classes) == (12, 1, 7)
    with pytest.raises(ValueError, match="8 x 12 pixels, this U-Net wants squares"):
        CONFIG.for_data((8, 12, 1), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width=0 must be at least 1"),
        ({"num_classes": 0}, "num_classes=0 must be at least 1"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0 must lie in"),
        ({"attention": (True,)}, r"attention=\(True,\) has 1 entries for 2 levels"),
        ({"image_size": 10}, "image_size=10 must be a multiple of 4: patch_size=2, and 2 levels"),
        ({"num_groups": 3}, "num_groups=3 must divide width=4"),
        ({"num_heads": 3}, "num_heads=3 must divide width=4"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_inputs_that_do_not_fit():
    with pytest.raises(ValueError, match=r"axis 1 \(height\) is 6 instead of 8"):
        build()(random(3, 6, 8, 2), TIMES)
    with pytest.raises(ValueError, match="num_classes=None: this U-Net wants no labels"):
        build()(X, TIMES, LABELS)
    assert np.isfinite(build()(X, TIMES)).all()
