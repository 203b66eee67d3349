"""Sliding windows, for convolution and pooling alike: sizes per axis, and padding."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

Size: TypeAlias = int | Sequence[int]
"""One number for every spatial axis, or one number per axis."""

Padding: TypeAlias = Literal["SAME", "VALID"] | int | Sequence[int | tuple[int, int]]
"""`"SAME"` (output = input / stride, rounded up), `"VALID"` (none), or rows added: one number for
both ends of every axis, one per axis, or a pair (low, high) per axis."""


def per_axis(size: Size, num_axes: int, name: str) -> tuple[int, ...]:
    """`size` as one number per spatial axis."""
    sizes = (size,) * num_axes if isinstance(size, int) else tuple(size)
    if len(sizes) != num_axes:
        raise ValueError(f"{name}={size} has {len(sizes)} numbers for {num_axes} spatial axes")
    if min(sizes) < 0:
        raise ValueError(f"{name}={size} must not be negative")
    return sizes


def span(window: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """How many input rows a window covers when its taps stand `dilation` apart."""
    return tuple(d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True))


def pad_pairs(
    padding: Padding, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Padding as explicit (low, high) pairs.

    `"SAME"` pads `max((ceil(n/s) - 1)·s + span - n, 0)` rows in all, the odd one at the high end;
    with a stride this differs from a fixed `span // 2` at both ends, which PyTorch models use.
    """
    if padding == "VALID":
        return [(0, 0)] * len(sizes)
    if padding == "SAME":
        steps = zip(sizes, spans, strides, strict=True)
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in steps]
        return [(total // 2, total - total // 2) for total in totals]
    if isinstance(padding, str):
        raise ValueError(f"{padding=} is neither 'SAME' nor 'VALID' nor a number of rows")
    rows = [padding] * len(sizes) if isinstance(padding, int) else list(padding)
    pairs = [(row, row) if isinstance(row, int) else (row[0], row[1]) for row in rows]
    if len(pairs) != len(sizes):
        raise ValueError(f"{padding=} has {len(pairs)} entries for {len(sizes)} spatial axes")
    if min(min(pair) for pair in pairs) < 0:
        raise ValueError(f"{padding=} must not be negative")
    return pairs


def transposed_crops(
    padding: Padding,
    sizes: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
    output_padding: Sequence[int],
) -> list[tuple[int, int]]:
    """Rows that a transposed convolution of `sizes` rows cuts off at (low, high) ends.

    Whole, its output has `stride·(n - 1) + span` rows. A negative number adds rows of zeros.
    """
    if padding == "SAME":
        # What the convolution would have padded at size stride·n; a window shorter than the stride
        # leaves rows that nothing writes, which are added.
        full = [s * n for n, s in zip(sizes, strides, strict=True)]
        pads = pad_pairs("SAME", full, spans, strides)
        extra = [e + max(s - k, 0) for e, k, s in zip(output_padding, spans, strides, strict=True)]
    else:
        pads, extra = pad_pairs(padding, sizes, spans, strides), output_padding
    return [(low, high - e) for (low, high), e in zip(pads, extra, strict=True)]


def check_fits(sizes: Sequence[int], spans: Sequence[int], pads: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError where not even one window fits in the padded input."""
    for axis, (n, k, (low, high)) in enumerate(zip(sizes, spans, pads, strict=True)):
        if n + low + high < k:
            raise ValueError(
                f"spatial axis {axis} has {n} rows, too few for a window that spans {k}; "
                "use larger inputs, fewer layers that shrink them, or padding"
            )
