"""What a task offers for maps of rasters: shares of classes for windows, or for every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from vitrail.layers.heads import Output

if TYPE_CHECKING:
    from torch import Tensor


class ClassShares(NamedTuple):
    """The probability of each class, (b, k), and for which images the answer is "none of these" (None: never)."""

    probabilities: Tensor
    none: Tensor | None = None


@runtime_checkable
class OfWindows(Protocol):
    """A task that predicts one class of an image: in a map that of the pixel in the middle of a window."""

    def class_shares(self, output: Output) -> ClassShares:
        """Return the shares of the classes of each image."""
        ...


@runtime_checkable
class OfPixels(Protocol):
    """A task that predicts a class of every pixel, from the output `map`."""

    def pixel_shares(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes from logits: (k, height, width) both."""
        ...
