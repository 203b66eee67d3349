"""Residual networks: their published sizes, their start, their stems."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import zoo
from tests.close import assert_close
from tests.zoo.compare import output_shape, random, randomized, run
from zoo.models.resnet import ResNet, ResNetConfig

SMALL = ResNetConfig(stage_sizes=(1, 1), width=4, stem="cifar", in_channels=2, num_classes=3)


def shape_of(config, *image_shape):
    model = nnx.eval_shape(lambda: ResNet(config, rngs=nnx.Rngs(0)))
    model = nnx.view(model, deterministic=True)
    shapes = {}

    def trace(model, x):
        x = model.stem(x)
        shapes["stem"] = x.shape
        if config.stem == "imagenet":
            x = model.max_pool(x, 3, strides=2, padding=1)
        for block in model.blocks:
            x = block(x)
        shapes["blocks"] = x.shape

    nnx.eval_shape(trace, model, jnp.zeros(image_shape))
    return shapes


@pytest.mark.parametrize(
    ("name", "parameters", "statistics"),
    [
        ("resnet18", 11_689_512, 9_600),
        ("resnet34", 21_797_672, 17_024),
        ("resnet50", 25_557_032, 53_120),
    ],
)
def test_published_parameter_counts(name, parameters, statistics):
    model = nnx.eval_shape(lambda: zoo.create(name, rngs=nnx.Rngs(0)))
    _, params, rest = nnx.split(model, nnx.Param, ...)
    assert sum(p.size for p in jax.tree.leaves(params)) == parameters
    assert sum(p.size for p in jax.tree.leaves(rest)) == statistics


def test_the_cifar_presets_differ_in_stem_and_classes_only():
    for name in ("resnet18", "resnet34", "resnet50"):
        big = zoo.config(name)
        assert zoo.config(f"{name}-cifar") == dataclasses.replace(big, stem="cifar", num_classes=10)


def test_the_imagenet_stem_divides_by_four_and_the_stages_by_eight_more():
    assert shape_of(ResNetConfig.resnet18(), 1, 224, 224, 3) == {
        "stem": (1, 112, 112, 64),
        "blocks": (1, 7, 7, 512),
    }


def test_the_cifar_stem_keeps_the_size():
    assert shape_of(ResNetConfig.resnet50_cifar(), 1, 32, 32, 3) == {
        "stem": (1, 32, 32, 64),
        "blocks": (1, 4, 4, 2048),
    }


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("zero_init", [True, False])
def test_the_last_scale_of_a_block_starts_at_zero_if_the_config_says_so(block, zero_init):
    config = dataclasses.replace(SMALL, block=block, zero_init_last_scale=zero_init)

    @jax.jit  # leaves out the random kernels, which are not asked for
    def scales():
        first = ResNet(config, rngs=nnx.Rngs(0)).blocks[0]
        last = first.conv2 if block == "basic" else first.conv3
        return first.conv1.norm.scale[...], last.norm.scale[...]

    first, last = scales()
    assert set(first.tolist()) == {1.0}
    assert set(last.tolist()) == {0.0 if zero_init else 1.0}


def test_with_a_zero_last_scale_a_block_is_its_shortcut():
    block = randomized(lambda: ResNet(SMALL, rngs=nnx.Rngs(0))).blocks[0]
    for parameter in (block.conv2.norm.scale, block.conv2.norm.bias):
        parameter.set_value(jnp.zeros(4))
    x = random(2, 6, 6, 4)
    assert_close(block(x), jax.nn.relu(x))


def test_norm_decay_is_that_of_the_running_moments():
    x = 3 + random(4, 8, 8, 2)
    moved = []
    for decay in (0.9, 0.5):
        config = dataclasses.replace(SMALL, norm_decay=decay)
        model = randomized(lambda config=config: ResNet(config, rngs=nnx.Rngs(0)))
        before = model.stem.norm.mean[...]
        moved.append(run(model.stem, x).statistics["norm.mean"] - before)
    assert_close(moved[1], 5 * moved[0])


def test_any_image_size_is_taken():
    model = nnx.eval_shape(lambda: ResNet(SMALL, rngs=nnx.Rngs(0)))
    for size in (1, 5, 16):
        assert output_shape(model, 2, size, size + 1, 2) == (2, 3)
