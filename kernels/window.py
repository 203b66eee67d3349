"""What one tap of a sliding window sees: the slices that convolution and pooling are made of."""

from collections.abc import Iterator, Sequence
from itertools import product

from jax import lax
from jaxtyping import Array

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


def rows_out(sizes: Sequence[int], spans: Sequence[int], strides: Sizes, pads: Pads) -> Sizes:
    """How many positions a window has along each axis of `sizes` rows."""
    axes = zip(sizes, spans, strides, pads, strict=True)
    return tuple((n + low + high - k) // s + 1 for n, k, s, (low, high) in axes)


def taps(window: Sizes) -> Iterator[Sizes]:
    """The places in a window, row by row."""
    return product(*map(range, window))


def tap(x: Array, start: Sequence[int], rows: Sizes, strides: Sizes) -> Array:
    """Every `strides`-th row of `[B, *I, C]` from `start`, `rows` of them along each axis."""
    stop = [a + s * (n - 1) + 1 for a, s, n in zip(start, strides, rows, strict=True)]
    batch, *_, channels = x.shape
    return lax.slice(x, (0, *start, 0), (batch, *stop, channels), (1, *strides, 1))
