"""GANs: sides, classes, modes, and settings that cannot be; `parity` has the twin."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
import zoo
from tests.close import assert_close
from tests.zoo.compare import count_parameters, random, randomized, run
from zoo.functional.ops import Ops
from zoo.models.gan import GAN, Discriminator, GANConfig, Generator

CONFIG = GANConfig(image_size=12, in_channels=2, latent_dim=5, width=3)
CLASSES = dataclasses.replace(CONFIG, num_classes=4)
LABELS = jnp.array([0, 3, 1, 1])


def build(config=CONFIG, ops: Ops = Ops()) -> GAN:
    return randomized(lambda: GAN(config, rngs=nnx.Rngs(0), ops=ops))


@pytest.mark.parametrize(
    ("side", "smallest", "dims"),
    [(8, 4, (3,)), (12, 6, (3,)), (28, 7, (3, 6)), (32, 4, (3, 6, 12)), (64, 4, (3, 6, 12, 24))],
)
def test_the_side_decides_the_depth(side, smallest, dims):
    config = dataclasses.replace(CONFIG, image_size=side)
    assert (config.smallest_size, config.dims) == (smallest, dims)
    gan = nnx.eval_shape(lambda: GAN(config, rngs=nnx.Rngs(0)))
    images = nnx.eval_shape(lambda gan, z: gan(z), gan, jnp.zeros((2, 5)))
    assert images.shape == (2, side, side, 2)
    logits = nnx.eval_shape(lambda gan, x: gan.discriminator(x), gan, jnp.zeros(images.shape))
    assert logits.shape == (2,)


def test_graph_mode_tree_mode_and_kernels_agree():
    for part, x in (("generator", random(4, 5)), ("discriminator", random(4, 12, 12, 2))):
        results = []
        for graph, ops in ((True, Ops()), (False, Ops()), (True, kernels.best())):
            with nnx.set_graph_mode(graph):
                results.append(run(getattr(build(ops=ops), part), x))
        assert_close(results[1]._asdict(), results[0]._asdict())
        assert_close(results[2].output, results[0].output, kind="composite")
        assert_close(results[2].gradients, results[0].gradients, kind="composite")
        assert all(jnp.any(gradient != 0) for gradient in results[0].gradients.values())


def test_images_lie_between_minus_one_and_one():
    images = build()(10 * random(8, 5))
    assert jnp.abs(images).max() <= 1
    assert jnp.std(images) > 0.1


def test_classes_change_images_and_logits():
    gan = nnx.view(build(CLASSES), deterministic=True)
    z, images = random(4, 5), random(4, 12, 12, 2)
    other = LABELS.at[1].set(2)
    for part, given in ((gan.generator, z), (gan.discriminator, images)):
        change = part(given, other) - part(given, LABELS)
        assert jnp.any(change[1] != 0) and not jnp.any(change[jnp.array([0, 2, 3])])


def test_a_label_adds_its_projection():
    """Miyato and Koyama 2018, equation 4: what a class adds is linear in the features."""
    gan = nnx.view(build(CLASSES), deterministic=True)
    images, plain = random(4, 12, 12, 2), nnx.view(build(), deterministic=True)
    state = nnx.state(gan.discriminator)
    nnx.update(gan.discriminator, {"classes": {"table": jnp.zeros((4, 3))}})
    del state["classes"]
    nnx.update(plain.discriminator, state)
    assert_close(gan.discriminator(images, LABELS), plain.discriminator(images))


def test_spectral_norm_bounds_the_slope():
    config = dataclasses.replace(CONFIG, norm="none", spectral_norm=True)
    discriminator = build(config).discriminator
    images = random(4, 12, 12, 2)
    for _ in range(30):
        discriminator(images)
    slope = jax.vmap(jax.grad(lambda x: nnx.view(discriminator, deterministic=True)(x[None])[0]))
    norms = jnp.linalg.norm(slope(images).reshape(4, -1), axis=1)
    # A 4x4 window with stride 2 reads each pixel up to four times.
    assert (norms <= 2.0**config.num_layers).all() and (norms > 0).all()


def count(config) -> int:
    return count_parameters(nnx.eval_shape(lambda: GAN(config, rngs=nnx.Rngs(0))))


# Every field, another value, and how many more parameters the GAN then has.
CHANGES = [
    ("image_size", 24, None),
    ("in_channels", 1, -(2 * 16 * 3 + 1)),
    ("latent_dim", 6, 6 * 6 * 3),
    ("width", 4, None),
    ("num_classes", 4, 4 * 5 + 5 * 108 + 4 * 3),
    ("norm", "none", 0),
    ("spectral_norm", True, 0),
]


def test_the_table_of_changes_names_every_field():
    assert [name for name, _, _ in CHANGES] == [f.name for f in dataclasses.fields(CONFIG)]


@pytest.mark.parametrize(("field", "value", "more"), CHANGES)
def test_every_field_changes_the_model(field, value, more):
    config = dataclasses.replace(CONFIG, **{field: value})
    assert config != CONFIG
    difference = count(config) - count(CONFIG)
    assert difference > 0 if more is None else difference == more


def test_norm_of_the_discriminator():
    """Only deeper discriminators have one: the layer at an image has none."""
    deep = dataclasses.replace(CONFIG, image_size=24)
    sizes = {
        norm: count(dataclasses.replace(deep, norm=norm)) for norm in ("batch", "layer", "none")
    }
    assert sizes["layer"] - sizes["none"] == 2 * 6
    assert sizes["batch"] - sizes["none"] == 2 * 6 - 6  # and no bias before it


def test_presets():
    model = nnx.eval_shape(lambda: zoo.create("dcgan-64", rngs=nnx.Rngs(0)))
    assert [norm.scale.shape for norm in model.generator.norms] == [(1024,), (512,), (256,), (128,)]
    assert zoo.config("dcgan-28").smallest_size == 7


def test_a_config_takes_the_shape_of_the_data():
    config = CLASSES.for_data((28, 28, 3), 10)
    assert (config.image_size, config.in_channels, config.num_classes) == (28, 3, 10)
    assert CONFIG.for_data((28, 28, 3), 10).num_classes is None
    with pytest.raises(ValueError, match="28 x 20 pixels, a GAN wants squares"):
        CONFIG.for_data((28, 20, 1), 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, "image_size=30 is not .* the nearest such side is 28"),
        ({"image_size": 6}, "the nearest such side is 8"),
        ({"latent_dim": 0}, "latent_dim=0 must be at least 1"),
        ({"num_classes": 0}, "num_classes=0 must be at least 1"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("config", "part", "given", "message"),
    [
        (CONFIG, Generator, (np.zeros((4, 6), np.float32),), r"\(latent\) is 6 instead of 5"),
        (CONFIG, Generator, (np.zeros((4, 5), np.float32), LABELS), "wants no labels"),
        (
            CLASSES,
            Generator,
            (np.zeros((4, 5), np.float32),),
            "a label for each row",
        ),
        (CONFIG, Discriminator, (np.zeros((4, 12, 10, 2), np.float32),), "width"),
        (CLASSES, Discriminator, (np.zeros((4, 12, 12, 2), np.float32),), "wants a label"),
    ],
)
def test_wrong_inputs_are_named(config, part, given, message):
    model = part(config, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        model(*map(jnp.asarray, given))
