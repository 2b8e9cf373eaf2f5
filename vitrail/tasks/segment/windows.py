"""Images larger than the input, answered in overlapping windows: their logits are weighed and summed in one buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vitrail.core.errors import SettingError

AT_ONCE = 4
"""Windows that are computed together."""

Compute = Callable[[Tensor], Tensor]
"""From windows (n, channels, *size) to their maps (n, k, row, col)."""


def in_windows(compute: Compute, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the map of an image (channels, height, width) from maps of its windows: (k, row, col).

    The sides of the image are those of a window, or longer by whole parts of it (`Preprocess.whole`). Windows overlap
    by a quarter; each counts by a Hann window, most in its middle, and the weights of a cell sum to 1.

    Raises:
        SettingError: windows do not begin at cells of the map.
    """
    corners = [
        (top, left) for top in starts(image.shape[1], size[0]) for left in starts(image.shape[2], size[1])
    ]
    total: Tensor | None = None
    weights, unit = torch.zeros(()), (1.0, 1.0)
    for corner, one in _each(compute, image, size, corners):
        if total is None:
            unit = (one.shape[1] / size[0], one.shape[2] / size[1])
            rows, cols = (round(side * scale) for side, scale in zip(image.shape[1:], unit, strict=True))
            total = one.new_zeros(one.shape[0], rows, cols, dtype=torch.float32)
            weights = total.new_zeros(rows, cols)
        top, left = (_whole(at * scale) for at, scale in zip(corner, unit, strict=True))
        weight = hann(one.shape[1])[:, None] * hann(one.shape[2])[None]
        weight = weight.to(total)
        total[:, top : top + one.shape[1], left : left + one.shape[2]] += one.float() * weight
        weights[top : top + one.shape[1], left : left + one.shape[2]] += weight
    assert total is not None
    return total.div_(weights)


def _each(
    compute: Compute, image: Tensor, size: tuple[int, int], corners: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Yield the corner of each window and its map, some windows at a time."""
    for start in range(0, len(corners), AT_ONCE):
        some = corners[start : start + AT_ONCE]
        windows = [image[:, top : top + size[0], left : left + size[1]] for top, left in some]
        yield from zip(some, compute(torch.stack(windows)), strict=True)


def starts(length: int, window: int) -> list[int]:
    """Return where windows begin on a side: three quarters of one apart, the last one flush with the end."""
    step = max(1, window - window // 4)
    return [*range(0, length - window, step), length - window]


def hann(cells: int) -> Tensor:
    """Return a Hann window that is nowhere zero: (cells,)."""
    return torch.sin(torch.pi * (torch.arange(cells) + 0.5) / cells).square()


def _whole(at: float) -> int:
    if abs(at - round(at)) > 1e-6:
        raise SettingError(
            "The windows of this input do not begin at cells of its map. Take an --imgsz whose sides are a multiple of "
            "four patches."
        )
    return round(at)
