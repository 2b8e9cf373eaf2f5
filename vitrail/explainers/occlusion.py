"""Occlusion: Zeiler and Fergus 2013, arXiv:1311.2901, §2.2; works with any network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.core.errors import SettingError
from vitrail.explainers.target import AT_ONCE, Subject
from vitrail.layers.tokens import FeatureSpec
from vitrail.runs.network import Network

CELLS = 14
"""Cells along the shorter side, unless patches are larger."""


@dataclass(frozen=True)
class OcclusionSettings:
    """Width and height of the covering square in cells; it moves by one cell."""

    window: int = 2

    def __post_init__(self) -> None:
        """Raise a SettingError for a window without a cell."""
        if self.window < 1:
            raise SettingError(f"--window must be 1 cell or more, not {self.window}.")


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

    def __call__(self, subject: Subject, pixels: Tensor) -> Tensor:
        """Return how far the score falls without each cell: (b, channels, height, width) -> (b, row, col).

        A cell has the mean of all squares that cover it; below 0 if the cell is evidence against the prediction.
        """
        return torch.stack([self._one(subject, image) for image in pixels])

    def _one(self, subject: Subject, image: Tensor) -> Tensor:
        rows, cols = cell_grid(subject.spec, image)
        wide = self._wide(rows, cols)
        # Squares extend over the border, so that every cell is covered equally often.
        down, across = rows + wide - 1, cols + wide - 1
        covered = torch.zeros(down * across, rows, cols)
        for turn in range(down * across):
            top, left = turn // across - wide + 1, turn % across - wide + 1
            covered[turn, max(0, top) : top + wide, max(0, left) : left + wide] = 1
        whole = subject.scores(image[None])
        falls = whole - covered_scores(subject, image, covered, mean_colour(image))
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


def mean_colour(image: Tensor) -> Tensor:
    """Return an image filled with the mean of each channel: (channels, height, width)."""
    return image.mean((1, 2), keepdim=True).expand_as(image)


def covered_scores(subject: Subject, image: Tensor, covered: Tensor, cover: Tensor) -> Tensor:
    """Return the scores of the image with masked cells, (m, row, col), replaced by `cover`: (m,)."""
    parts = []
    for some in torch.split(covered, AT_ONCE):
        masks = on_pixels(some, image.shape[1], image.shape[2])[:, None].to(image)
        parts.append(subject.scores(image * (1 - masks) + cover * masks))
    return torch.cat(parts)


def on_pixels(cells: Tensor, height: int, width: int) -> Tensor:
    """Enlarge (m, row, col) cells to pixels without smoothing: (m, height, width)."""
    down = _edges(cells.shape[1], height)
    across = _edges(cells.shape[2], width)
    return cells.repeat_interleave(down, 1).repeat_interleave(across, 2)


def _edges(cells: int, pixels: int) -> Tensor:
    """Return the width of each cell in whole pixels: (cells,)."""
    edges = torch.linspace(0, pixels, cells + 1, dtype=torch.float64).round().long()
    return edges.diff()


def cell_grid(spec: FeatureSpec, image: Tensor) -> tuple[int, int]:
    """Return the rows and columns of cells of an image: its patches, or about 14 along the shorter side."""
    height, width = image.shape[-2:]
    patch = 1 if spec.attention == "none" else spec.strides[0]
    unit = max(patch, min(height, width) / CELLS)
    return max(1, round(height / unit)), max(1, round(width / unit))
