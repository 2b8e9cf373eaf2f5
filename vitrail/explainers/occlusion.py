"""Occlusion: Zeiler and Fergus 2013, arXiv:1311.2901, §2.2; works with any network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.explainers.masked_images import MaskedImages
from vitrail.explainers.target import Subject
from vitrail.layers.tokens import FeatureSpec
from vitrail.runs.network import Network

CELLS = 14
"""Cells along the shorter side, unless patches are larger."""


FINE = 150
"""Cells of a grid from which ranks are compared on larger squares."""


@dataclass(frozen=True)
class OcclusionSettings:
    """Width and height of the covering square in cells, and by how many cells it moves: at most by its width."""

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

    def coarse(self, cells: tuple[int, int]) -> Occlusion:
        """Return a version with a fraction of the forward passes, to compare ranks: squares side by side, a cell wider.

        On a small grid too few squares would be left: the method itself.
        """
        wide = self.settings.window + 1
        if cells[0] * cells[1] < FINE or wide > min(cells):
            return self
        return Occlusion(OcclusionSettings(wide, stride=wide))

    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return how far the score falls without each cell: (b, channels, height, width) -> (b, row, col).

        A cell has the mean of all squares that cover it; below 0 if the cell is evidence against the prediction.
        """
        return torch.stack([self._one(subject, image) for image in pixels])

    def _one(self, subject: Subject, image: Tensor) -> Tensor:
        rows, cols = cell_grid(subject.spec, image)
        wide = self._wide(rows, cols)
        covered = _squares(rows, cols, wide, min(self.settings.stride, wide))
        masks = torch.cat([torch.zeros(1, rows, cols), covered])  # the whole image is first
        none = torch.zeros(len(masks), dtype=torch.long)
        images = MaskedImages(image, masks, mean_colour(image)[None], none, "occlusion")
        scores = subject.masked_scores(images)
        falls = scores[0] - scores[1:]
        return (falls[:, None, None] * covered).sum(0) / covered.sum(0)

    def _wide(self, rows: int, cols: int) -> int:
        most = min(rows, cols)
        if self.settings.window > max(
            most, OcclusionSettings.window
        ):  # the default shrinks with a small grid
            raise SettingError(
                f"--window {self.settings.window} does not fit into {rows} × {cols} cells. Give {most} or less."
            )
        return min(self.settings.window, most)


def _squares(rows: int, cols: int, wide: int, stride: int) -> Tensor:
    """Return squares of `wide` cells, one every `stride` cells: (m, row, col) of 0 and 1.

    They extend over the border, so that every cell is covered equally often.
    """
    corners = [
        (top, left)
        for top in range(stride - wide, rows, stride)
        for left in range(stride - wide, cols, stride)
    ]
    covered = torch.zeros(len(corners), rows, cols)
    for square, (top, left) in zip(covered, corners, strict=True):
        square[max(0, top) : top + wide, max(0, left) : left + wide] = 1
    return covered


def mean_colour(image: Tensor) -> Tensor:
    """Return an image filled with the mean of each channel: (channels, height, width)."""
    return image.mean((1, 2), keepdim=True).expand_as(image)


def cell_grid(spec: FeatureSpec, image: Tensor) -> tuple[int, int]:
    """Return the rows and columns of cells of an image: its patches, or about 14 along the shorter side."""
    height, width = image.shape[-2:]
    patch = 1 if spec.attention == "none" else spec.strides[0]
    unit = max(patch, min(height, width) / CELLS)
    return max(1, round(height / unit)), max(1, round(width / unit))
