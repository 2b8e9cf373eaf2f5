"""Read many windows of a raster at once: windows near each other are cut out of one larger read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.rasters.grid import Window
from vitrail.data.rasters.stack import Stack, open_stack

_TILE = 256
"""Windows whose corners lie in one tile of this side are read together."""

_WASTE = 16
"""A common read of so many times the pixels of the windows in it is not worth it."""


class Seen(NamedTuple):
    """A window: its place in the list that was asked for, and its values, or the error."""

    at: int
    values: NDArray[np.float32] | None  # (height, width, bands)
    error: str = ""


def read_windows(
    root: Path, path: str, windows: Sequence[Window], names: Sequence[str] = ()
) -> Iterator[Seen]:
    """Yield the values of windows of a raster, in no order; broken places are told, not raised.

    Raises:
        DataError: the raster cannot be opened.
    """
    stack = open_stack(root, path)
    tiles: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (left, top, _, _) in enumerate(windows):
        tiles[top // _TILE, left // _TILE].append(i)
    for own in tiles.values():
        yield from _together(stack, windows, own, names)


def _together(
    stack: Stack, windows: Sequence[Window], own: Sequence[int], names: Sequence[str]
) -> Iterator[Seen]:
    corners = np.array([windows[i] for i in own])
    left, top = corners[:, :2].min(0).tolist()
    right, bottom = corners[:, 2:].max(0).tolist()
    pixels = ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])).sum()
    whole = None
    if len(own) > 1 and (right - left) * (bottom - top) <= _WASTE * pixels:
        try:
            whole = stack.read((left, top, right, bottom), names)
        except DataError:
            whole = None  # one of the windows is broken: which one is seen below
    for i in own:
        if whole is None:
            yield _single(stack, windows[i], i, names)
        else:
            x, y, x1, y1 = windows[i]
            yield Seen(i, np.ascontiguousarray(whole[y - top : y1 - top, x - left : x1 - left]))


def _single(stack: Stack, window: Window, at: int, names: Sequence[str]) -> Seen:
    try:
        return Seen(at, stack.read(window, names))
    except DataError as error:
        return Seen(at, None, str(error))
