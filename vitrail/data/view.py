"""Transforms between an original image and a network input: image, mask, points and boxes in, maps back out.

Coordinates are (x, y) in pixels of the original or of the input; the centre of the first pixel of a side is at 0.5.
The random numbers of a view are drawn once, when it is built, so that image and truth get the same transform.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from vitrail.core.errors import SettingError
from vitrail.data.augment import MOVING_TRUTH, Augment, Move, drawn_on
from vitrail.data.batch import Geometry
from vitrail.data.resize import Span, resize

if TYPE_CHECKING:
    from vitrail.data.preprocess import Preprocess

Floats = NDArray[np.floating[Any]]


class Plan(NamedTuple):
    """Resize to `resized`, then take the window with the size of the input whose corner is at `corner`."""

    resized: tuple[int, int]
    corner: tuple[int, int]  # negative if the input is padded


class Drawn(NamedTuple):
    """The drawn augmentation: region, geometric transform, and the state of torch's generator after it."""

    augment: Augment
    region: tuple[int, int, int, int] | None
    move: Move | None
    state: Tensor


@dataclass(frozen=True, slots=True)
class View:
    """One input of one image, built by `Preprocess.view`. `drawn` is None in prediction."""

    preprocess: Preprocess
    geometry: Geometry
    plan: Plan
    drawn: Drawn | None = None

    def image(self, image: NDArray[Any]) -> Tensor:
        """Return the input (channels, *size) of the decoded image (height, width, channels).

        Of a clip (frames, height, width, channels), every frame gets the same transform: (frames, channels, *size).
        """
        if image.ndim == 4:
            return torch.stack([self._input(frame) for frame in image])
        return self._input(image)

    def _input(self, image: NDArray[Any]) -> Tensor:
        self._check(image, (*self.geometry.original, self.preprocess.channels))
        steps, drawn = self.preprocess, self.drawn
        if drawn is None:
            return self._framed(steps.normalise(self._shown(image)))
        if drawn.region is not None:
            top, left, height, width = drawn.region
            image = image[top : top + height, left : left + width]
        shown = self._framed(self._shown(image), steps.ground)
        with drawn_on(drawn.state):
            if steps.raw:
                changed = drawn.augment.raw(shown, drawn.move, steps.ground)
            else:
                changed = drawn.augment.pixels(shown, drawn.move)
            return drawn.augment.finish(steps.normalise(changed))

    def mask(self, mask: NDArray[Any], void: int) -> NDArray[Any]:
        """Return a mask (height, width) in the input: the nearest value, `void` outside the image."""
        self._refuse_unmoved()
        self._check(mask, self.geometry.original)
        rows, cols = self.geometry.size
        y, x = np.arange(rows) + 0.5, np.arange(cols) + 0.5
        if self.geometry.moved is None:
            down, across = _to_original(self.geometry)
            return _nearest(mask, (down[0] * y + down[1])[:, None], (across[0] * x + across[1])[None], void)
        at = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1).reshape(-1, 2)
        before = _through(_inverse(self.geometry.moved), at)
        shown = np.all((before >= 0) & (before < (cols, rows)), axis=1, keepdims=True)
        inside = np.where(shown, points_in_original(self.geometry, at), -1.0).reshape(rows, cols, 2)
        return _nearest(mask, inside[..., 1], inside[..., 0], void)

    def points(self, xy: NDArray[Any]) -> Floats:
        """Return points (n, 2) of the original in pixels of the input; points it does not show are outside it."""
        self._refuse_unmoved()
        return points_in_input(self.geometry, xy)

    def boxes(self, xyxy: NDArray[Any]) -> tuple[Floats, Floats]:
        """Return boxes (n, 4) of the original in pixels of the input, and the visible share of each (n,).

        A box is clipped at the border of the input; a rotated box becomes the upright box around it.
        """
        self._refuse_unmoved()
        return clip_boxes(around(self.points(corners(xyxy))), self.geometry.size)

    def back(self, maps: Tensor, fill: float = float("nan")) -> Tensor:
        """Return maps of the input (…, rows, cols) in the pixels of the original; see `maps_in_original`."""
        self._refuse_unmoved()
        return maps_in_original(self.geometry, maps, fill)

    def _check(self, array: NDArray[Any], shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise SettingError(f"This view is for an array of shape {shape}, not {array.shape}.")

    def _refuse_unmoved(self) -> None:
        if self.drawn is not None and not self.drawn.augment.moves_truth:
            raise SettingError(
                f"The augmentation {self.drawn.augment.name!r} moves the image, but not masks, points or boxes with "
                f"it. Choose one of {', '.join(MOVING_TRUTH)}."
            )

    def _shown(self, image: NDArray[Any]) -> Tensor:
        """Return the visible part of the resized image: (c, at most *size)."""
        rows, cols = map(_span, self.plan.resized, self.plan.corner, self.geometry.size)
        whole = self.preprocess.rounded and image.dtype == np.uint8
        shown = resize(image, rows, cols, self.preprocess.interpolation, exact=whole)
        if whole:
            shown = shown.round().clamp(0, 255)
        return _filled(shown, self.preprocess.ground) if image.dtype.kind == "f" else shown

    def _framed(self, shown: Tensor, ground: tuple[float, ...] = ()) -> Tensor:
        """Pad to (c, *size) with the colours `ground`, zero by default."""
        (top, left), (rows, cols) = (max(0, -corner) for corner in self.plan.corner), self.geometry.size
        below, right = rows - top - shown.shape[1], cols - left - shown.shape[2]
        if not (top or left or below or right):
            return shown
        if not ground:
            return pad(shown, (left, right, top, below))
        shift = torch.tensor(ground).view(-1, 1, 1)
        return pad(shown - shift, (left, right, top, below)) + shift


def geometry_of(
    original: tuple[int, int], size: tuple[int, int], plan: Plan, drawn: Drawn | None = None
) -> Geometry:
    """Return the position of an input of `size` in an original (height, width)."""
    region = drawn and drawn.region
    above, before, height, width = region or (0, 0, *original)
    tall, wide = height / plan.resized[0], width / plan.resized[1]  # original pixels per resized pixel
    top, left = plan.corner
    box = (
        above + top * tall, before + left * wide, above + (top + size[0]) * tall, before + (left + size[1]) * wide
    )  # fmt: skip
    return Geometry(original, size, box, drawn.move.matrix if drawn and drawn.move else None)


def scaled(geometry: Geometry, longest: int) -> Geometry:
    """Return the geometry of the same input for a smaller original, whose long side has at most this length."""
    height, width = geometry.original
    part = min(1.0, longest / max(height, width))
    small = (max(1, round(height * part)), max(1, round(width * part)))
    down, across = small[0] / height, small[1] / width
    top, left, bottom, right = geometry.box
    return replace(geometry, original=small, box=(top * down, left * across, bottom * down, right * across))


def points_in_input(geometry: Geometry, xy: NDArray[Any]) -> Floats:
    """Return points (n, 2) of the original in pixels of the input."""
    down, across = _to_original(geometry)
    before = (np.asarray(xy, np.float64) - (across[1], down[1])) / (across[0], down[0])
    return before if geometry.moved is None else _through(geometry.moved, before)


def points_in_original(geometry: Geometry, xy: NDArray[Any]) -> Floats:
    """Return points (n, 2) of the input in pixels of the original."""
    down, across = _to_original(geometry)
    before: Floats = np.asarray(xy, np.float64)
    if geometry.moved is not None:
        before = _through(_inverse(geometry.moved), before)
    return before * (across[0], down[0]) + (across[1], down[1])


def boxes_in_original(geometry: Geometry, xyxy: NDArray[Any]) -> Floats:
    """Return boxes (n, 4) of the input in pixels of the original, clipped at its border."""
    return clip_boxes(around(points_in_original(geometry, corners(xyxy))), geometry.original)[0]


def strips_in_original(
    geometry: Geometry, maps: Tensor, most: int, fill: float = float("nan")
) -> Iterator[tuple[slice, Tensor]]:
    """Yield `maps_in_original` strip by strip: the rows of the original and their maps, with a limited size.

    With strips, the maps of a large image are never in memory at the size of the original.
    """
    height, width = geometry.original
    step = max(1, most // max(1, maps[..., 0, 0].numel() * width))
    for start in range(0, height, step):
        rows = slice(start, min(height, start + step))
        yield rows, maps_in_original(geometry, maps, fill, rows)


def maps_in_original(
    geometry: Geometry, maps: Tensor, fill: float = float("nan"), rows: slice = slice(None)
) -> Tensor:
    """Return maps (…, rows, cols) in the pixels of the original (…, height, width); `fill` outside the input.

    The maps cover the whole input, with any number of rows and columns. Each original pixel gets the value at its
    centre, interpolated linearly between the centres of cells; beyond the outermost centres it gets the outermost
    value. `rows` are the requested rows of the original.
    """
    y, x = np.arange(geometry.original[0])[rows] + 0.5, np.arange(geometry.original[1]) + 0.5
    height, width = len(y), len(x)
    if geometry.moved is None:
        down, across = _to_original(geometry)
        y, x = (y - down[1]) / down[0], (x - across[1]) / across[0]
        at = _cells(y, geometry.size[0], maps.shape[-2])
        first, last = int(at.min()), min(int(at.max()) + 2, maps.shape[-2])
        # Rows first: only the requested ones, and there are fewer columns before interpolation.
        wide = _lerp(maps[..., first:last, :], _cells(x, geometry.size[1], maps.shape[-1]), -1)
        found = _lerp(wide, at - first, -2)
        seen = ((y >= 0) & (y <= geometry.size[0]))[:, None] & ((x >= 0) & (x <= geometry.size[1]))[None]
    else:
        at = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1)
        share = points_in_input(geometry, at.reshape(-1, 2)).reshape(at.shape) / geometry.size[::-1]
        grid = torch.from_numpy(2 * share - 1).to(maps.dtype)[None]
        flat = maps.reshape(1, -1, *maps.shape[-2:])
        found = grid_sample(flat, grid, padding_mode="border", align_corners=False)
        found = found.view(*maps.shape[:-2], height, width)
        seen = np.all((share >= 0) & (share <= 1), axis=-1)
    return found if seen.all() else found.masked_fill(torch.from_numpy(~seen), fill)


def weights_in_original(geometry: Geometry, rows: int, cols: int) -> tuple[Tensor, Tensor]:
    """Return the interpolation weights of rows and columns of a map: (height, rows), (width, cols).

    With them, `maps_in_original` of an input without augmentation is two matrix products, except for `fill`.
    """
    down, across = _to_original(geometry)
    found = []
    for axis, (slope, start), cells in ((0, down, rows), (1, across, cols)):
        at = (np.arange(geometry.original[axis]) + 0.5 - start) / slope
        found.append(_lerp(torch.eye(cells), _cells(at, geometry.size[axis], cells), -2))
    return found[0], found[1]


def corners(xyxy: NDArray[Any]) -> Floats:
    """Return the four corners of boxes (n, 4), one after the other: (4 n, 2)."""
    return np.asarray(xyxy, np.float64).reshape(-1, 4)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)


def around(points: Floats) -> Floats:
    """Return the upright boxes (n, 4) around four points each, (4 n, 2)."""
    four = points.reshape(-1, 4, 2)
    return np.concatenate([four.min(1), four.max(1)], 1)


def clip_boxes(xyxy: Floats, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return boxes (n, 4) clipped at the border of (height, width), and the remaining share of each (n,).

    A side of length zero counts as visible if it is inside.
    """
    far = np.array(size[::-1], np.float64)
    low, high = xyxy[:, :2], xyxy[:, 2:]
    inside = np.clip(low, 0, far), np.clip(high, 0, far)
    length = high - low
    point = ((low >= 0) & (low <= far)).astype(np.float64)
    left = np.divide(inside[1] - inside[0], length, out=point, where=length > 0)
    return np.concatenate(inside, 1), left.prod(1)


def _to_original(geometry: Geometry) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return slope and offset of y, and of x, from an input without augmentation to its original."""
    (rows, cols), (top, left, bottom, right) = geometry.size, geometry.box
    return ((bottom - top) / rows, top), ((right - left) / cols, left)


def _through(matrix: Any, xy: Floats) -> Floats:
    whole = np.asarray(matrix, np.float64)
    moved: Floats = xy @ whole[:, :2].T + whole[:, 2]
    return moved


def _inverse(matrix: Any) -> Floats:
    found: Floats = np.linalg.inv(np.vstack([np.asarray(matrix, np.float64), (0.0, 0.0, 1.0)]))[:2]
    return found


def _nearest(mask: NDArray[Any], y: Floats, x: Floats, void: int) -> NDArray[Any]:
    """Return the values of the mask pixels that contain the points; `void` outside."""
    rows, cols = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    inside = (rows >= 0) & (rows < mask.shape[0]) & (cols >= 0) & (cols < mask.shape[1])
    found = mask[np.clip(rows, 0, mask.shape[0] - 1), np.clip(cols, 0, mask.shape[1] - 1)]
    return found if inside.all() else np.where(inside, found, np.asarray(void, mask.dtype))


def _cells(at: Floats, size: int, cells: int) -> Floats:
    """Return points on an axis of length `size` in cells, where 0 is the centre of the first cell."""
    found: Floats = np.clip(at * (cells / size) - 0.5, 0, cells - 1)
    return found


def _lerp(maps: Tensor, at: Floats, axis: int) -> Tensor:
    """Return maps at points of an axis, in cells, interpolated linearly between their centres."""
    cells = maps.shape[axis]
    low = np.minimum(np.floor(at).astype(np.int64), max(cells - 2, 0))
    part = torch.from_numpy(at - low).to(maps.dtype)
    part = part[:, None] if axis == -2 else part
    first, second = torch.from_numpy(low), torch.from_numpy(np.minimum(low + 1, cells - 1))
    return torch.lerp(maps.index_select(axis, first), maps.index_select(axis, second), part)


def _filled(shown: Tensor, ground: tuple[float, ...]) -> Tensor:
    """Replace missing data (NaN) with the padding colour."""
    gaps = torch.isnan(shown)
    return torch.where(gaps, torch.tensor(ground).view(-1, 1, 1), shown) if gaps.any() else shown


def _span(whole: int, corner: int, size: int) -> Span:
    """Return the pixels of a resized side of length `whole` that an input of `size` at `corner` shows."""
    first = max(0, corner)
    return Span(whole, first, min(whole, corner + size) - first)
