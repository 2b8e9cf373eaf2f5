"""One sample, one batch, and where the network's pixels lie in the original picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a network input lies on its original: `box` is what the input shows, in original pixels.

    `original` and `size` are (height, width); `box` is (top, left, bottom, right), larger than the original
    where the input was padded and smaller where it was cropped. `moved` takes (x, y, 1) of an input pixel to where an
    augmentation moved it, two rows of three; None where nothing moved, as at prediction.
    """

    original: tuple[int, int]
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    moved: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None


class Sample(NamedTuple, Generic[Target]):
    """One decoded picture with its target: `image` is uint8 (height, width, channels), upright."""

    id: str
    image: NDArray[np.uint8]
    target: Target


@dataclass(frozen=True, slots=True)
class Batch(Generic[Target]):
    """What a network eats: `images` float32 (b, channels, height, width), one target and one id a picture."""

    images: Tensor
    targets: Sequence[Target]
    ids: tuple[str, ...]
    geometry: tuple[Geometry, ...] = ()
