"""A convolution with zero padding on all windows of a map, without computing overlapping windows twice.

A window that is cut out of a map and padded with zeros has other outputs than the map itself at its border only, where
some taps of the kernel fall outside. The products with each tap are therefore computed once for each place of the map;
a window adds those of its taps that stay inside. There are few kinds of places: for a 3 x 3 kernel the first row, the
last row and those between, and the same for columns. The results are equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class Padding(NamedTuple):
    """How a convolution walks over a window of one axis: pixels from one output to the next, and zeros in front."""

    stride: int
    before: int


class _Run(NamedTuple):
    """Outputs `first` to `last` (exclusive) of one axis, whose taps `low` to `high` (exclusive) stay inside."""

    first: int
    last: int
    low: int
    high: int


def tap_products(maps: Tensor, kernel: Tensor) -> Tensor:
    """Return the product of every place with every tap: (b, row, col, c), (o, c, k, k) -> (b, row, col, k, k, o)."""
    o, c, rows, cols = kernel.shape
    products = maps @ kernel.permute(1, 2, 3, 0).reshape(c, rows * cols * o)
    return products.view(*maps.shape[:3], rows, cols, o)


def convolve_windows(
    products: Tensor, size: tuple[int, int], padding: Padding, bias: Tensor | None
) -> Tensor:
    """Return the convolution of each window of `size` (rows, cols), zero outside of itself, one for each position.

    (b, row, col, k, k, o) of `tap_products` -> (b, row - rows + 1, col - cols + 1, ⌈rows/stride⌉, ⌈cols/stride⌉, o).
    """
    b, row, col, taps, _, o = products.shape
    high, wide = row - size[0] + 1, col - size[1] + 1
    stride, before = padding
    out = products.new_empty(b, high, wide, -(-size[0] // stride), -(-size[1] // stride), o)
    for r in _runs(size[0], taps, padding):
        rows = _summed(products, 1, r.low, r.high)  # (b, row', col, k, o)
        for c in _runs(size[1], taps, padding):
            cells = _summed(rows, 2, c.low, c.high)  # (b, row', col', o)
            cells = cells if bias is None else cells + bias
            cells = cells[:, r.first * stride - before + r.low :, c.first * stride - before + c.low :]
            views = cells.unfold(1, (r.last - r.first - 1) * stride + 1, 1)[:, :high]
            views = views.unfold(2, (c.last - c.first - 1) * stride + 1, 1)[:, :, :wide]
            part = views[..., ::stride, ::stride].permute(0, 1, 2, 4, 5, 3)
            out[:, :, :, r.first : r.last, c.first : c.last] = part
    return out


def _summed(products: Tensor, axis: int, low: int, high: int) -> Tensor:
    """Return the sum over the taps of an axis (the first of those after the places), each at its own place."""
    length = products.shape[axis] - (high - low) + 1
    parts = (products.narrow(axis, tap - low, length).select(3, tap) for tap in range(low, high))
    total = next(parts).clone()
    for part in parts:
        total += part
    return total


def _runs(size: int, taps: int, padding: Padding) -> Iterator[_Run]:
    """Yield neighbouring outputs of a window whose same taps stay inside."""
    begin: _Run | None = None
    for out in range(-(-size // padding.stride)):
        start = out * padding.stride - padding.before
        low, high = max(0, -start), min(taps, size - start)
        if begin is not None and (begin.low, begin.high) == (low, high):
            begin = begin._replace(last=out + 1)
            continue
        if begin is not None:
            yield begin
        begin = _Run(out, out + 1, low, high)
    assert begin is not None, "a window has at least one output"
    yield begin
