"""The class of every pixel of a raster from a segmentation network, in overlapping windows or in exact tiles.

Windows overlap by at least a third, as for large images (`tasks/segment/windows.py`); each is weighted by a Hann
window, so that none shows a border. A network whose outputs depend on few pixels around them is run on larger tiles
with a margin of this reach instead: then the map does not depend on the tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import images_only
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.grid import Grid, Window
from vitrail.data.view import maps_in_original
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.rasters.tiles import BLOCK, TileAnswer
from vitrail.infer.rasters.window_classes import normalised, unresized
from vitrail.runs.run_network import answering, run_network
from vitrail.tasks.class_maps import OfPixels
from vitrail.tasks.segment.windows import hann, starts

AT_ONCE = 8
"""Windows that are computed together."""

MOST = 1 << 26
"""Largest number of values (classes x pixels) of a tile that is summed: 256 MB."""

LONGEST = 2048
"""Longest side of such a tile."""

FARTHEST = 1024
"""Side of the largest image on which the reach of a network is looked for."""


class BlendedWindows:
    """Predicts tiles as weighted sums of the logits of overlapping windows; see `TileNetwork`."""

    def __init__(self, predictor: Predictor, task: OfPixels, request: Request, grid: Grid) -> None:
        self.predictor, self.task, self.request = predictor, task, request
        self.size = window_size(predictor.preprocess)
        self.tops, self.lefts = (
            starts(max(length, side), side, 1)
            for length, side in zip((grid.height, grid.width), self.size, strict=True)
        )
        long = min(LONGEST, isqrt(MOST // len(predictor.labels)), 8 * max(self.size))
        self.side = max(1, long // BLOCK) * BLOCK
        self.words = f"overlapping windows of {self.size[1]} x {self.size[0]} pixels"

    def around(self, core: Window) -> Window:
        """Return the window that holds all windows which touch the tile."""
        tops, lefts = self._touching(core)
        return lefts[0], tops[0], lefts[-1] + self.size[1], tops[-1] + self.size[0]

    def _touching(self, core: Window) -> tuple[list[int], list[int]]:
        rows, cols = self.size
        tops = [top for top in self.tops if top < core[3] and top + rows > core[1]]
        return tops, [left for left in self.lefts if left < core[2] and left + cols > core[0]]

    def predict(self, values: NDArray[np.float32], core: Window, wanted: NDArray[np.bool_]) -> TileAnswer:
        """Return the classes of a tile."""
        left, top, right, bottom = self.around(core)
        total = torch.zeros(len(self.predictor.labels), bottom - top, right - left)
        weights = torch.zeros(bottom - top, right - left)
        weight = hann(self.size[0])[:, None] * hann(self.size[1])[None]
        tops, lefts = self._touching(core)
        corners = [(y - top, x - left) for y in tops for x in lefts]
        for start in range(0, len(corners), AT_ONCE):
            some = corners[start : start + AT_ONCE]
            for (y, x), logits in zip(some, self._logits(values, some), strict=True):
                total[:, y : y + self.size[0], x : x + self.size[1]] += logits * weight
                weights[y : y + self.size[0], x : x + self.size[1]] += weight
        rows, cols = slice(core[1] - top, core[3] - top), slice(core[0] - left, core[2] - left)
        return _shares(total[:, rows, cols] / weights[rows, cols], self.task)

    def _logits(self, values: NDArray[np.float32], corners: Sequence[tuple[int, int]]) -> list[Tensor]:
        windows = [values[y : y + self.size[0], x : x + self.size[1]] for y, x in corners]
        ready = [self.predictor.ready(np.ascontiguousarray(one), self.request.point) for one in windows]
        maps = self.predictor.outputs(ready, self.request)["map"]
        return [
            maps_in_original(one.geometry, logits.float()) for one, logits in zip(ready, maps, strict=True)
        ]


class ExactTiles:
    """Predicts tiles with a margin beyond which nothing changes their logits; see `TileNetwork`."""

    side = BLOCK

    def __init__(self, predictor: Predictor, task: OfPixels, request: Request, margin: int) -> None:
        self.predictor, self.task, self.margin = predictor, task, margin
        self.unit = predictor.network.spec.unit
        self.compute = answering(predictor.task, predictor.at(request.point), request.ask)
        self.words = f"tiles with a margin of {margin} pixels, the reach of the network"

    def around(self, core: Window) -> Window:
        """Return the tile with its margin, in whole cells of the network."""
        left, top = core[0] - self.margin, core[1] - self.margin
        wide, high = (
            -(-(end - start + self.margin) // self.unit) * self.unit
            for start, end in ((left, core[2]), (top, core[3]))
        )
        return left, top, left + wide, top + high

    def predict(self, values: NDArray[np.float32], core: Window, wanted: NDArray[np.bool_]) -> TileAnswer:
        """Return the classes of a tile."""
        images = normalised(self.predictor.preprocess, values)[None]
        (_, output), *_ = run_network(self.compute, [images_only(images)], self.predictor.device)
        shape = (values.shape[0], values.shape[1])
        geometry = unresized(self.predictor.preprocess, shape).geometry(*shape)
        logits = maps_in_original(geometry, output["map"][0].float())
        left, top, right, bottom = core
        inside = logits[:, self.margin : self.margin + bottom - top, self.margin : self.margin + right - left]
        return _shares(inside, self.task)


def window_size(steps: Preprocess) -> tuple[int, int]:
    """Return the (height, width) of what an input shows, in pixels of the raster."""
    if steps.window:
        return steps.window, steps.window
    zoom = steps.zoom or 1.0
    return max(1, round(steps.size[0] / zoom)), max(1, round(steps.size[1] / zoom))


def margin_of(predictor: Predictor) -> int:
    """Return the margin in pixels beyond which nothing changes the output of a network; 0: not bounded, or resized.

    Missing numbers (NaN) are put into the middle of an image of zeros: whatever depends on them is NaN.
    """
    steps, spec = predictor.preprocess, predictor.network.spec
    same = window_size(steps) == steps.size and steps.crop_fraction == 1.0
    if not same or spec.attention != "none" or spec.sizes == "fixed" or BLOCK % spec.unit:
        return 0
    side = max(64, -(-max(steps.size) // spec.unit) * spec.unit)
    while side <= FARTHEST:
        if far := _reach(predictor, side):
            return -(-far // spec.unit) * spec.unit
        side *= 2
    return 0


def _reach(predictor: Predictor, side: int) -> int:
    """Return how many pixels from its middle an image of this side changes the map; 0: as far as its border."""
    unit = predictor.network.spec.unit
    first = side // 2 // unit * unit
    images = torch.zeros(1, predictor.preprocess.channels, side, side)
    images[:, :, first : first + unit, first : first + unit] = torch.nan
    compute = answering(predictor.task, predictor.network)
    (_, output), *_ = run_network(compute, [images_only(images)], predictor.device)
    found = output["map"].isnan().any(1)[0]
    if found[0].any() or found[-1].any() or found[:, 0].any() or found[:, -1].any():
        return 0
    cell = side / found.shape[0]
    places = torch.nonzero(found)
    low, high = float(places.min()) - 1, float(places.max()) + 2  # the map is interpolated between its cells
    return int(np.ceil(max(first + unit - low * cell, high * cell - first)))


def _shares(logits: Tensor, task: OfPixels) -> TileAnswer:
    return TileAnswer(task.pixel_shares(logits).numpy())
