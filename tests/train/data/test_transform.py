"""Statistics, resizing, categories and one-hot codes against numpy and Pillow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.close import assert_close
from train.data import transform


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_moments_equal_numpy(monkeypatch, dtype):
    monkeypatch.setattr(transform, "CHUNK", 100)  # several chunks, the last one short
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 5, 3)).astype(dtype)
    mean, std = transform.moments(images)
    assert mean.dtype == std.dtype == np.float32
    assert_close(mean, images.astype(np.float64).mean((0, 1, 2)), kind="leaf")
    assert_close(std, images.astype(np.float64).std((0, 1, 2)), kind="leaf")


def test_a_constant_feature_has_deviation_one():
    table = np.array([[0.1, 5, 0], [0.1, 7, 0], [0.1, 9, 0]], np.float32)
    _, std = transform.moments(table)
    np.testing.assert_allclose(std, [1, float(np.std([5, 7, 9])), 1], rtol=1e-6)


def test_a_narrow_spread_on_a_large_mean_is_not_constant():
    table = np.array([[1e6], [1e6 + 1]])
    np.testing.assert_allclose(transform.moments(table)[1], [0.5])


@pytest.mark.parametrize("size", [(28, 28), (32, 48), (50, 33), (9, 9), (300, 211)])
@pytest.mark.parametrize("side", [1, 7, 16, 28, 40, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows_bilinear(size, side, channels):
    images = np.random.default_rng(1).integers(0, 256, (3, *size, channels), dtype=np.uint8)
    got = transform.resize_images(images, side)
    assert got.shape == (3, side, side, channels) and got.dtype == np.uint8
    scaled = [round(length * side / min(size)) for length in size]
    top, left = ((length - side) // 2 for length in scaled)
    for image, ours in zip(images, got, strict=True):
        theirs = Image.fromarray(image.squeeze(-1) if channels == 1 else image).resize(
            (scaled[1], scaled[0]), Image.Resampling.BILINEAR
        )
        expected = np.asarray(theirs).reshape(*scaled, channels)
        np.testing.assert_array_equal(ours, expected[top : top + side, left : left + side])


def test_resize_keeps_what_has_the_size_and_float_images():
    images = np.random.default_rng(2).random((2, 8, 8, 1), np.float32)
    assert transform.resize_images(images, 8) is images
    small = transform.resize_images(images, 4)
    assert small.dtype == np.float32
    np.testing.assert_allclose(transform.resize_images(np.ones_like(images), 5), 1, rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(-2, 6), max_size=20), st.integers(1, 5))
def test_one_hot(codes, count):
    hot = transform.one_hot(np.array(codes, int), count)
    assert hot.shape == (len(codes), count)
    for row, code in zip(hot, codes, strict=True):
        assert row.tolist() == [float(i == code) for i in range(count)]


def test_category_codes():
    words = np.array(["b", "a", "", "c", "a"], object)
    codes, names = transform.category_codes(words)
    assert names == ("a", "b", "c")
    np.testing.assert_array_equal(codes, [1, 0, np.nan, 2, 0])
    codes, names = transform.category_codes(np.array(["z", "b"], object), names)
    np.testing.assert_array_equal(codes, [3, 1])  # 3: unknown, one-hot all zeros
    table = transform.expand_categories(np.array([[7, 3], [8, 1]], np.float32), {1: names})
    np.testing.assert_array_equal(table, [[7, 0, 0, 0], [8, 0, 1, 0]])
