"""What the network takes for an image with noise, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail import plots

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]

WIDE = 224
"""Pixels of the short side of an image on a page."""


@dataclass(frozen=True, slots=True)
class Denoised:
    """An input with noise, what the network takes for the image, and the image: uint8 (height, width, channels).

    `level` is the noise level, `error` the squared error of the noise (0 perfect, 1 no better than no guess).
    """

    noisy: Pixels
    guess: Pixels
    truth: Pixels
    level: int
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Return the level and the error."""
        return {"level": self.level, "error": round(self.error, 6)}

    def __str__(self) -> str:
        return f"noise of level {self.level} told with an error of {self.error:.3f}"

    def drawn(self, least: int) -> Image:
        """Return the three side by side, small ones enlarged until their short side has `least` pixels."""
        panels = {"with noise": self.noisy, "guess": self.guess, "truth": self.truth}
        shown = {name: plots.shown(plots.of_array(one), least) for name, one in panels.items()}
        return plots.beside(*(plots.titled(panel, name) for name, panel in shown.items()))


def pixels_of(images: Tensor) -> Pixels:
    """Return numbers from -1 to 1 as pixels: (b, c, h, w) -> uint8 (b, h, w, c)."""
    shown = (images.float().clamp(-1, 1) + 1) * 127.5
    found: Pixels = shown.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return found
