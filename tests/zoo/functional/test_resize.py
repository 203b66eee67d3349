"""Maps made larger and smaller, pixel by pixel; PyTorch's pixel shuffle has another order."""

import numpy as np
import pytest

from tests.close import assert_close
from tests.zoo.compare import random
from zoo.functional.resize import depth_to_space, space_to_depth, upsample


def test_upsample_repeats_each_pixel():
    x = random(2, 3, 4, 5)
    y = np.asarray(upsample(x, 3))
    assert y.shape == (2, 9, 12, 5)
    for i, j in np.ndindex(9, 12):
        assert np.array_equal(y[:, i, j], x[:, i // 3, j // 3])


@pytest.mark.parametrize("side", [1, 2, 3])
def test_squares_become_channels(side):
    x = random(2, 6, 12, 5)
    y = np.asarray(space_to_depth(x, side))
    for i, j in np.ndindex(6 // side, 12 // side):
        square = x[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
        assert np.array_equal(y[:, i, j], square.reshape(2, -1))
    assert_close(depth_to_space(space_to_depth(x, side), side), x)


def test_what_cannot_be_cut():
    with pytest.raises(ValueError, match="6 x 8 pixels cannot be cut in squares of 4 x 4"):
        space_to_depth(random(1, 6, 8, 1), 4)
    with pytest.raises(ValueError, match="6 channels are no squares of 2 x 2"):
        depth_to_space(random(1, 2, 2, 6), 2)
