"""Fixed transformations of whole columns: statistics, resizing, categories, one-hot codes.

Numpy only: they run once, on the host, before the first step.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

CHUNK = 1 << 24  # values converted to float64 at a time


def moments(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over all axes but the last, in float64 sums, as float32 [C].

    ``std = sqrt(mean((x - mean)^2))`` (the population's, R in the denominator); 1 where a channel
    never changes, so that dividing by it is always safe.

    Args:
        inputs: [R, ..., C], any real dtype, at least one row.
    """
    flat = inputs.reshape(-1, inputs.shape[-1])
    step = max(1, CHUNK // flat.shape[1])
    chunks = [flat[i : i + step] for i in range(0, len(flat), step)]
    mean = sum(chunk.sum(0, dtype=np.float64) for chunk in chunks) / len(flat)
    variance = sum(((chunk - mean) ** 2).sum(0) for chunk in chunks) / len(flat)
    # Rounding leaves a constant column a variance of about (eps * mean)^2, not exactly 0.
    constant = variance <= (1e-12 * np.abs(mean)) ** 2
    std = np.where(constant, 1.0, np.sqrt(variance))
    return np.asarray(mean, np.float32), std.astype(np.float32)


def resize_images(images: np.ndarray, side: int) -> np.ndarray:
    """Scales the shorter side to ``side``, crops the centre: [R, I, J, C] -> [R, side, side, C].

    Bilinear with antialiasing, as Pillow's ``BILINEAR`` and for uint8 equal to it to the last bit:
    when shrinking, the triangle filter is as wide as the step between output pixels, so no input
    pixel is skipped. Width first, then height, rounded after each pass.
    """
    height, width, channels = images.shape[1:]
    if (height, width) == (side, side):
        return images
    size = [round(length * side / min(height, width)) for length in (height, width)]
    top, left = ((length - side) // 2 for length in size)
    exact = images.dtype == np.uint8
    rows = _bilinear(height, size[0], exact)[top : top + side]
    columns = _bilinear(width, size[1], exact)[left : left + side]
    out = np.empty((len(images), side, side, channels), images.dtype)
    step = max(1, CHUNK // (height * width * channels))
    for i in range(0, len(images), step):
        part = np.einsum("oj,rijc->rioc", columns, images[i : i + step], optimize=True)
        part = np.einsum("oi,rijc->rojc", rows, _rounded(part) if exact else part, optimize=True)
        out[i : i + step] = _rounded(part) if exact else part
    return out


_UNIT = 2.0**22  # Pillow's weights are whole multiples of 1 / _UNIT; float64 sums of them are exact


@lru_cache(maxsize=16)
def _bilinear(size: int, out: int, exact: bool) -> np.ndarray:
    """Weights [out, size] of the triangle filter max(0, 1 - |distance| / step)."""
    scale = size / out
    centres = (np.arange(out)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(size)[None, :] + 0.5 - centres) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    weights /= weights.sum(1, keepdims=True)
    return np.floor(weights * _UNIT + 0.5) if exact else weights


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values / _UNIT + 0.5), 0, 255)


def category_codes(
    values: np.ndarray, vocabulary: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Words to codes by their place in the vocabulary (the sorted distinct words by default).

    Returns:
        codes: float32 [R]; NaN for the empty word (missing), ``len(vocabulary)`` for unknown ones.
        vocabulary: the words.
    """
    names = tuple(vocabulary) if vocabulary is not None else tuple(sorted({*values} - {""}))
    place = {name: float(i) for i, name in enumerate(names)} | {"": float("nan")}
    return np.array([place.get(v, len(names)) for v in values], np.float32), names


def one_hot(codes: np.ndarray, num_codes: int) -> np.ndarray:
    """Codes [...] to float32 [..., num_codes] with a single 1; all 0 for a code out of range."""
    return (codes[..., None] == np.arange(num_codes)).astype(np.float32)


def expand_categories(table: np.ndarray, categories: dict[int, tuple[str, ...]]) -> np.ndarray:
    """Replaces the columns of ``table`` [R, F] that hold codes by their one-hot columns."""
    columns = [
        one_hot(table[:, i], len(categories[i])) if i in categories else table[:, i : i + 1]
        for i in range(table.shape[1])
    ]
    return np.concatenate(columns, axis=1)
