"""Occlusion: Zeiler and Fergus 2013, arXiv:1311.2901, §2.2; works with any network.

Of a clip, blocks in space and time are covered.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.explainers.grids import Grid
from vitrail.explainers.masked_images import MaskedImages
from vitrail.explainers.target import Subject
from vitrail.layers.tokens import FeatureSpec
from vitrail.runs.network import Network

CELLS = 14
"""Cells along the shorter side, unless patches are larger."""

CLIP_CELLS = 6
"""The same of a clip, and MOMENTS along its time: with the default window 441 forward passes, each of all frames."""

MOMENTS = 8

FINE = 150
"""Cells of a grid from which ranks are compared on larger squares."""


@dataclass(frozen=True)
class OcclusionSettings:
    """Width and height of the covering square in cells, and by how many cells it moves: at most by its width.

    In a clip it is a block that lasts as many cells of time.
    """

    window: int = 2
    stride: int = 1

    def __post_init__(self) -> None:
        """Raise a SettingError for a window without a cell."""
        if self.window < 1:
            raise SettingError(f"--window must be 1 cell or more, not {self.window}.")
        if not 1 <= self.stride <= self.window:
            raise SettingError(f"The stride must be 1 to {self.window} cells, the window, not {self.stride}.")


class Occlusion:
    """Cover the image piece by piece with its mean colour, and measure how far the score falls."""

    name = "occlusion"
    Settings = OcclusionSettings

    def __init__(self, settings: OcclusionSettings = OcclusionSettings()) -> None:
        self.settings = settings

    @staticmethod
    def fits(network: Network) -> bool:
        """Return True: occlusion only needs predictions."""
        return True

    def coarse(self, cells: Grid) -> Occlusion:
        """Return a version with a fraction of the forward passes, to compare ranks: squares side by side, a cell wider.

        On a small grid too few squares would be left: the method itself.
        """
        wide = self.settings.window + 1
        if prod(cells) < FINE or wide > min(cells):
            return self
        return Occlusion(OcclusionSettings(wide, stride=wide))

    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return how far the score falls without each cell: (b, channels, height, width) -> (b, row, col).

        A cell has the mean of all squares that cover it; below 0 if the cell is evidence against the prediction.
        Clips (b, t, channels, height, width) -> (b, moment, row, col).
        """
        return torch.stack([self._one(subject, image) for image in pixels])

    def _one(self, subject: Subject, image: Tensor) -> Tensor:
        cells = cell_grid(subject.spec, image)
        wide = self._wide(cells[-2:])
        covered = _squares(cells, wide, min(self.settings.stride, wide))
        masks = torch.cat([torch.zeros(1, *cells), covered])  # the whole image is first
        none = torch.zeros(len(masks), dtype=torch.long)
        images = MaskedImages(image, masks, mean_colour(image)[None], none, "occlusion")
        scores = subject.masked_scores(images)
        falls = scores[0] - scores[1:]
        total: Tensor = torch.tensordot(falls, covered, 1)
        return total / covered.sum(0)

    def _wide(self, cells: Grid) -> int:
        most = min(cells)
        if self.settings.window > max(
            most, OcclusionSettings.window
        ):  # the default shrinks with a small grid
            raise SettingError(
                f"--window {self.settings.window} does not fit into {cells[0]} × {cells[1]} cells. "
                f"Give {most} or less."
            )
        return min(self.settings.window, most)


def _squares(cells: Grid, wide: int, stride: int) -> Tensor:
    """Return squares of `wide` cells, one every `stride` cells: (m, *cells) of 0 and 1.

    They extend over the border, so that every cell is covered equally often.
    """
    corners = list(product(*(range(stride - wide, side, stride) for side in cells)))
    covered = torch.zeros(len(corners), *cells)
    for square, corner in zip(covered, corners, strict=True):
        square[tuple(slice(max(0, start), start + wide) for start in corner)] = 1
    return covered


def mean_colour(image: Tensor) -> Tensor:
    """Return an image or a clip filled with the mean of each channel: (…, channels, height, width)."""
    others = [axis for axis in range(image.ndim) if axis != image.ndim - 3]
    return image.mean(others, keepdim=True).expand_as(image)


def cell_grid(spec: FeatureSpec, image: Tensor) -> Grid:
    """Return the rows and columns of cells of an image: its patches, or about 14 along the shorter side.

    Of a clip (t, channels, height, width), fewer, after the number of cells along its time.
    """
    height, width = image.shape[-2:]
    patch = 1 if spec.attention == "none" else spec.strides[0]
    clip = spec.frames > 0
    unit = max(patch, min(height, width) / (CLIP_CELLS if clip else CELLS))
    moments = (min(len(image), MOMENTS),) if clip else ()
    return *moments, max(1, round(height / unit)), max(1, round(width / unit))
