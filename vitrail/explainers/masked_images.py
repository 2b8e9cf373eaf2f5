"""One image or clip many times, with other cells masked each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MaskedImages:
    """An image (channels, height, width) with each of some masks: (m, row, col) of 0 and 1, where 1 is masked.

    A masked cell shows one of the `fills`, (f, channels, height, width): `chosen` has its index for each mask, (m,).
    Of a clip, image and fills have an axis of frames before the channels, and masks are (m, t, row, col).
    `purpose` says in words what the scores are for.
    """

    image: Tensor
    masks: Tensor
    fills: Tensor
    chosen: Tensor
    purpose: str

    def __len__(self) -> int:
        return len(self.masks)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield the images in batches: (b, channels, height, width), clips (b, t, channels, height, width)."""
        *frames, _, height, width = self.image.shape
        for cells, chosen in zip(torch.split(self.masks, size), torch.split(self.chosen, size), strict=True):
            masks = on_pixels(cells, *frames, height, width).unsqueeze(-3).to(self.image)
            yield self.image * (1 - masks) + self.fills[chosen] * masks

    def some(self, places: Tensor) -> MaskedImages:
        """Return only the images at these places: (m,)."""
        return replace(self, masks=self.masks[places], chosen=self.chosen[places])

    def others(self, places: Tensor) -> Tensor:
        """Return the places of all other images, in order."""
        left = torch.ones(len(self), dtype=torch.bool)
        left[places] = False
        return left.nonzero()[:, 0]

    def key(self) -> bytes:
        """Return a digest that is equal for equal masks with equal fills; the image is not part of it."""
        digest = blake2b(digest_size=16)
        for tensor in (self.masks, self.fills, self.chosen):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
        return digest.digest()


def on_pixels(cells: Tensor, *sides: int) -> Tensor:
    """Enlarge (m, row, col) or (m, t, row, col) cells to `sides` pixels without smoothing: (m, *sides)."""
    for axis, side in enumerate(sides, 1):
        cells = cells.repeat_interleave(_edges(cells.shape[axis], side), axis)
    return cells


def _edges(cells: int, pixels: int) -> Tensor:
    """Return the width of each cell in whole pixels: (cells,)."""
    edges = torch.linspace(0, pixels, cells + 1, dtype=torch.float64).round().long()
    return edges.diff()
