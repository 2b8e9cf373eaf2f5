"""Prediction of images larger than the input in overlapping windows, as a weighted sum of their logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain

import torch
from torch import Tensor

from vitrail.core.errors import SettingError

AT_ONCE = 4
"""Windows that are computed together."""

CELLS = (
    "The windows of this input size do not start at cells of its map. Use an --imgsz whose sides are a multiple of "
    "four patches."
)

Compute = Callable[[Tensor], Tensor]
"""From windows (n, channels, *size) to their maps (n, k, row, col)."""


def in_windows(compute: Compute, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the map of an image (channels, height, width) from maps of its windows: (k, row, col).

    The sides of the image are those of a window, or longer by whole parts of it (`Preprocess.whole`). Windows overlap
    by at least a third. Each is weighted by a Hann window, and the weights of a cell sum to 1.

    Raises:
        SettingError: windows do not start at cells of the map.
    """
    first = compute(image[None, :, : size[0], : size[1]])[0]
    cells = [
        Fraction(side, many) for side, many in zip(size, first.shape[1:], strict=True)
    ]  # pixels of a cell
    rows, cols = (_whole(side / cell) for side, cell in zip(image.shape[1:], cells, strict=True))
    total = first.new_zeros(first.shape[0], rows, cols, dtype=torch.float32)
    weights = total.new_zeros(rows, cols)
    weight = (hann(first.shape[1])[:, None] * hann(first.shape[2])[None]).to(total)
    tops, lefts = (
        starts(side, window, cell.numerator)
        for side, window, cell in zip(image.shape[1:], size, cells, strict=True)
    )
    corners = [(top, left) for top in tops for left in lefts][1:]
    for corner, one in chain([((0, 0), first)], _each(compute, image, size, corners)):
        top, left = (_whole(at / cell) for at, cell in zip(corner, cells, strict=True))
        total[:, top : top + one.shape[1], left : left + one.shape[2]] += one.float() * weight
        weights[top : top + one.shape[1], left : left + one.shape[2]] += weight
    return total.div_(weights)


def _each(
    compute: Compute, image: Tensor, size: tuple[int, int], corners: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Yield the corner of each window and its map, computed in batches."""
    for start in range(0, len(corners), AT_ONCE):
        some = corners[start : start + AT_ONCE]
        windows = [image[:, top : top + size[0], left : left + size[1]] for top, left in some]
        yield from zip(some, compute(torch.stack(windows)), strict=True)


def starts(length: int, window: int, unit: int) -> list[int]:
    """Return the start of each window on a side: at most two thirds of a window apart, the last one at the end.

    All but the last start at a multiple of `unit` pixels, the smallest number that is a whole number of cells.

    Raises:
        SettingError: no overlapping windows start at cells.
    """
    step = 2 * window // 3 // unit * unit
    if length == window:
        return [0]
    if not step:
        raise SettingError(CELLS)
    return [*range(0, length - window, step), length - window]


def hann(cells: int) -> Tensor:
    """Return a Hann window without zeros: (cells,)."""
    return torch.sin(torch.pi * (torch.arange(cells) + 0.5) / cells).square()


def _whole(at: Fraction) -> int:
    if at.denominator != 1:
        raise SettingError(CELLS)
    return int(at)
