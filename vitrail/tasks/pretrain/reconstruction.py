"""What the network guesses of the hidden patches, and how it is drawn beside the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail import plots
from vitrail.data.batch import Geometry

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float32]

HIDDEN = 190
"""Grey of a hidden patch."""

RIDGE = 1e-6
"""Keeps the line through the colours of an image of one colour finite."""


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """An input of the network as it is and as it was guessed, (height, width, channels), and where it was hidden.

    `guess` shows the visible patches as they are. `hidden` is (height, width); `explained` the share of the variance of
    the hidden patches that the guess explains.
    """

    truth: Floats
    guess: Floats
    hidden: NDArray[np.bool_]
    explained: float
    geometry: Geometry

    def to_dict(self) -> dict[str, Any]:
        """Return the share of the pixels that was hidden, and of their variance that is explained."""
        return {"hidden": round(float(self.hidden.mean()), 4), "explained": round(self.explained, 6)}

    def __str__(self) -> str:
        return f"{self.explained:.0%} of the hidden patches explained"

    def panels(self, image: Image) -> tuple[Image, Image, Image]:
        """Return what the network saw, its guess and the image itself, at the size of the input.

        `image` is the whole original as it is shown. The colours of the guess follow from it: in each channel by the
        line that leads from the numbers of the input to the colours shown.
        """
        from PIL import Image as pictures

        true = np.asarray(_shown(image, self.geometry), np.float64)
        guess = _coloured(self.truth, self.guess, true)
        masked = np.where(self.hidden[..., None], HIDDEN, true)
        guess = np.where(self.hidden[..., None], guess, true)
        made = (np.clip(one, 0, 255).round().astype(np.uint8) for one in (masked, guess, true))
        first, second, third = (pictures.fromarray(one) for one in made)
        return first, second, third


def _shown(image: Image, geometry: Geometry) -> Image:
    """Return the part of the original that the input shows, in its size; black outside the image."""
    from PIL.Image import Resampling

    top, left, bottom, right = geometry.box
    whole = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
    inside = (left - whole[0], top - whole[1], right - whole[0], bottom - whole[1])
    height, width = geometry.size
    part = image.convert("RGB").crop(whole)
    return part.resize((width, height), Resampling.BICUBIC, box=inside)


def _coloured(truth: Floats, guess: Floats, shown: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a guess in the colours in which its truth is shown: (height, width, channels) -> (height, width, 3).

    The preprocessing is a line in each channel, which the truth and its picture determine.
    """
    x = np.concatenate([truth, np.ones((*truth.shape[:2], 1))], -1).reshape(-1, truth.shape[-1] + 1)
    y = np.concatenate([guess, np.ones((*guess.shape[:2], 1))], -1)
    line = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ shown.reshape(-1, 3))
    coloured: NDArray[np.float64] = y @ line
    return coloured


def triptych(image: Image, found: Reconstruction, least: int, gap: int = 8, title: bool = True) -> Image:
    """Return the three panels side by side, small ones enlarged until their short side has `least` pixels."""
    panels = [plots.shown(panel, least) for panel in found.panels(image)]
    if title:
        words = ("seen", "guess", "truth")
        panels = [plots.titled(panel, word) for panel, word in zip(panels, words, strict=True)]
    return plots.beside(*panels, gap=gap)
