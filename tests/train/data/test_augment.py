"""Augmentations against loops in numpy, and the invariants that each one promises."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.close import assert_close
from train.data import AugmentConfig
from train.data.augment import (
    augment,
    cutout,
    horizontal_flip,
    mixup,
    pad_and_crop,
    random_shift,
    symmetric_beta,
)

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(1, 256, (40, 9, 11, 2), dtype=np.uint8)
TARGETS = np.eye(5, dtype=np.float32)[np.arange(40) % 5]


def shifted(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    out = np.zeros_like(image)
    height, width, _ = image.shape
    for i in range(height):
        for j in range(width):
            if 0 <= i - dy < height and 0 <= j - dx < width:
                out[i, j] = image[i - dy, j - dx]
    return out


def test_shift_against_a_loop():
    got = np.asarray(random_shift(KEY, jnp.asarray(IMAGES), 3))
    offsets = np.asarray(jax.random.randint(KEY, (40, 2), -3, 4))
    assert {-3, 3} <= set(offsets.ravel().tolist())
    for image, ours, (dy, dx) in zip(IMAGES, got, offsets, strict=True):
        np.testing.assert_array_equal(ours, shifted(image, dy, dx))


def test_crop_against_a_loop():
    got = np.asarray(pad_and_crop(KEY, jnp.asarray(IMAGES), 4))
    offsets = np.asarray(jax.random.randint(KEY, (40, 2), -4, 5))
    for image, ours, (dy, dx) in zip(IMAGES, got, offsets, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(ours, padded[4 - dy : 13 - dy, 4 - dx : 15 - dx])


def test_flip_mirrors_about_half():
    got = np.asarray(horizontal_flip(KEY, jnp.asarray(IMAGES)))
    mirrored = [
        bool((ours == image[:, ::-1]).all()) for image, ours in zip(IMAGES, got, strict=True)
    ]
    same = [bool((ours == image).all()) for image, ours in zip(IMAGES, got, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert abs(sum(mirrored) - 20) <= 5 * np.sqrt(40 / 4)


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_is_one_clipped_square(side):
    images = jnp.ones((400, 9, 11, 1))
    holes = np.asarray(cutout(KEY, images, side))[..., 0] == 0
    areas = holes.sum((1, 2))
    assert areas.max() == side**2 and areas.min() >= ((side + 1) // 2) ** 2
    for hole in holes:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)  # a full rectangle
        assert max(len(rows), len(columns)) <= side
        assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1
    assert side == 1 or holes.any(0).all()  # 400 squares reach every pixel, corners too


def test_mixup_against_numpy():
    images, targets = mixup(KEY, jnp.asarray(IMAGES), jnp.asarray(TARGETS), 0.4)
    lam_key, order_key = jax.random.split(KEY)
    lam = float(symmetric_beta(lam_key, 0.4))
    order = np.asarray(jax.random.permutation(order_key, 40))
    x = IMAGES.astype(np.float32)
    assert 0 < lam < 1 and images.dtype == jnp.float32
    assert_close(images, lam * x + (1 - lam) * x[order], kind="leaf")
    assert_close(targets, lam * TARGETS + (1 - lam) * TARGETS[order], kind="leaf")
    np.testing.assert_allclose(np.asarray(targets).sum(1), 1, rtol=1e-6)
    assert_close(np.asarray(images).mean(0), x.mean(0), kind="leaf")  # mixing moves no mass


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_mixing_weights_follow_the_beta_distribution(alpha):
    keys = jax.random.split(KEY, 20_000)
    draws = np.asarray(jax.vmap(lambda key: symmetric_beta(key, alpha))(keys))
    assert np.isfinite(draws).all() and draws.min() >= 0 and draws.max() <= 1
    # Float32 has no numbers between 1 - 6e-8 and 1, where small alphas put much of their mass.
    inner = stats.beta(alpha, alpha).cdf
    for x in np.linspace(0.001, 0.999, 25):
        expected = inner(x)
        assert abs((draws <= x).mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / 20_000)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_off_is_the_identity(dtype):
    images = jnp.asarray(IMAGES.astype(dtype))
    got, targets = augment(AugmentConfig(), KEY, images, jnp.asarray(TARGETS))
    assert got is images and np.array_equal(targets, TARGETS)


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(shift=2),
        AugmentConfig(crop_padding=2),
        AugmentConfig(flip=True),
        AugmentConfig(cutout=3),
        AugmentConfig(mixup=0.3),
        AugmentConfig(shift=1, crop_padding=2, flip=True, cutout=3, mixup=0.3),
    ],
)
def test_compiled_equals_plain_and_the_key_decides(config):
    images, targets = jnp.asarray(IMAGES), jnp.asarray(TARGETS)
    compiled = jax.jit(partial(augment, config))
    one, two = compiled(KEY, images, targets), compiled(KEY, images, targets)
    plain = augment(config, KEY, images, targets)
    other = compiled(jax.random.key(4), images, targets)
    np.testing.assert_array_equal(one[0], two[0])
    assert_close(one[0].astype(jnp.float32), plain[0].astype(jnp.float32), kind="leaf")
    assert not np.array_equal(one[0], other[0])
    assert one[0].shape == images.shape
    assert one[0].dtype == (jnp.float32 if config.mixup else jnp.uint8)


def test_operations_draw_independently():
    images, targets = jnp.asarray(IMAGES), jnp.asarray(TARGETS)
    flipped, _ = augment(AugmentConfig(flip=True), KEY, images, targets)
    both, _ = augment(AugmentConfig(shift=1, flip=True), KEY, images, targets)
    shift, _ = augment(AugmentConfig(shift=1), KEY, images, targets)
    was_flipped = np.any(np.asarray(flipped) != IMAGES, axis=(1, 2, 3))
    expected = np.where(was_flipped[:, None, None, None], shift[:, :, ::-1], shift)
    np.testing.assert_array_equal(both, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shift": -1}, "shift=-1 must be 0"),
        ({"crop_padding": -1}, "crop_padding=-1"),
        ({"cutout": -2}, "cutout=-2"),
        ({"mixup": -0.1}, "finite positive alpha"),
        ({"mixup": float("nan")}, "finite positive alpha"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**wrong)


@pytest.mark.parametrize("name", ["shift", "crop_padding", "cutout"])
def test_settings_larger_than_the_image_are_refused(name):
    config = replace(AugmentConfig(), **{name: 9})
    with pytest.raises(ValueError, match=f"augmentation {name}=9 must be smaller .* 9"):
        augment(config, KEY, jnp.asarray(IMAGES), jnp.asarray(TARGETS))
