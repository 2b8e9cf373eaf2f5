"""Resize of images: antialiased, bicubic or bilinear, in float32, without rounding or clipping.

The result equals torch's `interpolate(mode=…, antialias=True)` and is several times faster (docs/benchmarks.md): only
the visible part is computed, the height first, and both sides are weighted sums of whole rows, which `embedding_bag`
computes with the widest CPU instructions. Exported graphs use two matrix products.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

Interpolation = Literal["bicubic", "bilinear"]
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)

Number = TypeVar("Number", NDArray[np.float32 | np.float64], Tensor)
"""Arrays or tensors."""

LEAST_DATA = 0.45
"""Not 0.5: edges of data reach it exactly, so rounding would decide, and exported graphs round differently."""

AT_ONCE = 1 << 18
"""Values converted to float32 at a time (1 MB), or a few rows: a whole photograph would not fit into the caches."""


class Span(NamedTuple):
    """A range of pixels on one side of a resized image: `size` pixels from `first`, of `whole` pixels."""

    whole: int
    first: int
    size: int


class Taps(NamedTuple):
    """For each pixel of a span: int32 indices on the original side and their weights, both (size, k)."""

    places: NDArray[np.int32]
    weights: NDArray[np.float32]


def resize(
    image: NDArray[Any], rows: Span, cols: Span, interpolation: Interpolation = "bicubic", exact: bool = False
) -> Tensor:
    """Return the shown part of a resized image: (height, width, c) -> float32 (c, rows.size, cols.size).

    Values are uint8, uint16 or float32. Missing data (NaN) has weight zero, and the other weights are increased to
    sum 1; if less than `LEAST_DATA` of the weight is left, the result is NaN. `exact` computes positions in float64, as
    Pillow does, and as precisely as exported graphs; those in float32, torch's, change pixels by up to 0.006 of 255.
    """
    if image.dtype.kind == "f" and (gaps := np.isnan(image)).any():
        known = resize(np.where(gaps, 0, image), rows, cols, interpolation)
        share = resize((~gaps).astype(np.float32), rows, cols, interpolation)
        return torch.where(share < LEAST_DATA, torch.nan, known / share)
    height, width, channels = image.shape
    if (rows.whole, cols.whole) == (height, width):
        shown = image[rows.first : rows.first + rows.size, cols.first : cols.first + cols.size]
        return _owned(shown).permute(2, 0, 1).float()
    if rows.size > height and cols.size < width:  # the side that shrinks first
        return resize(image.swapaxes(0, 1), cols, rows, interpolation, exact).mT.contiguous()
    down, across = taps(height, rows, interpolation, exact), taps(width, cols, interpolation, exact)
    left, right = int(across.places[0, 0]), int(across.places[-1, -1]) + 1
    low = _rows(image[:, left:right], down)  # (rows, right - left, c)
    standing = low.permute(1, 2, 0).reshape(right - left, -1)
    done = _sums(standing, Taps(across.places - left, across.weights))
    return done.view(cols.size, channels, rows.size).permute(1, 2, 0).contiguous()


def taps(length: int, span: Span, interpolation: Interpolation = "bicubic", exact: bool = False) -> Taps:
    """Return the indices and weights for a span of a side of `length` pixels.

    When shrinking, the kernel is widened by the scale (antialiasing). It is cut off at the border of the image and
    normalised to sum 1. All in float32, as in torch, or `exact` in float64.
    """
    number: Any = np.float64 if exact else np.float32
    reach = 2 if interpolation == "bicubic" else 1
    scale = number(length / span.whole)  # original pixels per new pixel
    wide = max(scale, number(1))
    half = number(0.5)
    middle = (np.arange(span.first, span.first + span.size, dtype=number) + half) * scale
    most = min(length, int(2 * reach * wide) + 2)
    first = np.clip((middle - reach * wide + half).astype(np.int32), 0, length - most)
    places = (first[:, None] + np.arange(most)).astype(np.int32)
    apart = places.astype(number) + half - middle[:, None]
    raw = kernel((apart / wide).astype(number, copy=False), interpolation)
    return Taps(places, (raw / raw.sum(1, keepdims=True)).astype(np.float32, copy=False))


def kernel(apart: Number, interpolation: Interpolation) -> Number:
    """Return the weights at a distance from the centre, in original pixels, for arrays and tensors of float32."""
    return cubic(apart) if interpolation == "bicubic" else triangle(apart)


def triangle(apart: Number) -> Number:
    """Return the weights of bilinear interpolation."""
    x: Number = abs(apart).clip(max=1)
    return 1 - x


def cubic(apart: Number) -> Number:
    """Return the weights of Keys (1981, IEEE TASSP 29) with a = -1/2."""
    x: Number = abs(apart).clip(max=2)  # at 2 the weight is zero, as for all larger distances
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return near * (x < 1) + far * (x >= 1)


def _rows(image: NDArray[Any], down: Taps) -> Tensor:
    """Resize only the height, one band of the image at a time: (height, w, c) -> float32 (rows, w, c)."""
    count, most = down.places.shape
    reach = int(down.places[-1, -1]) - int(down.places[0, 0]) + 1
    high = max(
        AT_ONCE // image[0].size, 2 * most
    )  # neighbouring bands share `most` rows, which are computed twice
    step = max(1, (high - most) * count // reach)
    bands = []
    for start in range(0, count, step):
        places, weights = down.places[start : start + step], down.weights[start : start + step]
        top, bottom = int(places[0, 0]), int(places[-1, -1]) + 1
        band = _owned(image[top:bottom]).view(bottom - top, -1).float()
        bands.append(_sums(band, Taps(places - top, weights)))
    return torch.cat(bands).view(count, *image.shape[1:])


def _sums(rows: Tensor, wanted: Taps) -> Tensor:
    """Return weighted sums of rows: (n, d) -> (count, d)."""
    places, weights = map(torch.from_numpy, wanted)
    return embedding_bag(places, rows, mode="sum", per_sample_weights=weights)


def _owned(image: NDArray[Any]) -> Tensor:
    # Decoders return read-only memory, for which torch prints a warning.
    return torch.from_numpy(np.array(image, order="C"))
