"""Tasks whose networks make images of their classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.tasks.generate.sampling import Making


class MakesImages(ABC):
    """What such a task has besides: images of a class, and a sheet of images of all."""

    settings: Any

    @abstractmethod
    def made(
        self, network: nn.Module, label: int, seed: int, numbers: Sequence[int], making: Making, start: Tensor
    ) -> Tensor:
        """Return the images with these numbers of a class and a seed: (b, c, h, w), about -1 to 1.

        `start` is an input (c, h, w) to begin from, of which `making.strength` says how much is replaced.
        """

    @abstractmethod
    def sheet(self, network: nn.Module, shape: tuple[int, ...]) -> Image:
        """Return images of each class, a row each; `shape` is that of an input."""
