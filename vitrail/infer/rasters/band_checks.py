"""Compare a raster with what a model was trained on: bands, range of values, size of pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.preprocess import Preprocess
from vitrail.data.rasters.bands import Band
from vitrail.data.rasters.grid import Grid
from vitrail.data.rasters.ground_areas import pixel_side
from vitrail.data.rasters.stack import Stack

SPOTS, SIDE = 16, 16
"""Rows and columns of windows that are sampled, and the pixels of their sides."""

OTHER_UNIT = 30.0
"""Values so many times larger or smaller have another unit: percent, 255, 10,000 and dB lie beyond it."""

WIDER = 3.0
"""A band of positive values that becomes negative has another unit if its range also grows by this factor."""

SHIFT = 0.5
"""Values outside the range of training by more than this share of it are told."""

TOLD, REFUSED = 1.05, 2.0
"""Factors between the sizes of pixels from which it is told, and refused."""


class Seen(NamedTuple):
    """The 1st percentile, the median and the 99th percentile of a band in a sample."""

    low: float
    middle: float
    high: float


def check_raster(stack: Stack, steps: Preprocess, name: str) -> list[str]:
    """Return remarks on a raster that differs from the training of a model.

    Raises:
        DataError: a band is missing or has another unit, there are no data, or pixels have another size.
    """
    remarks = check_pixel(stack.grid, steps.pixel, name)
    sample = sample_of(stack, steps.band_names or stack.names)
    bands = steps.bands or stack.bands
    if np.isnan(sample).all():
        raise DataError(
            f"{name} has no data at any of {SPOTS * SPOTS} places. Check its nodata value and its masks."
        )
    for band, values in zip(bands, sample.T, strict=True):
        remarks += _check_band(band, values, name)
    return remarks


def sample_of(stack: Stack, names: Sequence[str]) -> NDArray[np.float32]:  # (n, bands)
    """Return the pixels of windows spread over a raster."""
    grid = stack.grid
    parts = [
        stack.read((left, top, min(left + SIDE, grid.width), min(top + SIDE, grid.height)), names)
        for top in _places(grid.height)
        for left in _places(grid.width)
    ]
    return np.concatenate([one.reshape(-1, len(names)) for one in parts])


def _places(length: int) -> Iterator[int]:
    yield from sorted({round(at) for at in np.linspace(0, max(0, length - SIDE), SPOTS)})


def _check_band(band: Band, values: NDArray[np.float32], name: str) -> list[str]:
    if np.isnan(values).all():
        raise DataError(
            f"The band {band.called} of {name} has no data at any of {SPOTS * SPOTS} places, and its gaps would be "
            "zeros for the network. Give a file in which it has data."
        )
    seen = Seen(*(float(one) for one in np.nanpercentile(values, (1, 50, 99))))
    if band.low is None or band.high is None:
        return []
    found, known = f"{seen.low:.4g} to {seen.high:.4g}", f"{band.low:.4g} to {band.high:.4g}"
    if seen.low == seen.high == 0:
        return [f"The band {band.called} of {name} is 0 at all sampled places; in training it was {known}."]
    if hint := other_unit(seen, band.low, band.high):
        raise DataError(
            f"The band {band.called} of {name} has values from {found}, in training they were from {known} (1st to "
            f"99th percentile): {hint}"
        )
    reach = SHIFT * (band.high - band.low)
    if seen.low < band.low - reach or seen.high > band.high + reach:
        return [
            f"The band {band.called} of {name} has values from {found}, in training they were from {known}: the map is "
            "less certain there."
        ]
    return []


def other_unit(seen: Seen, low: float, high: float) -> str:
    """Return how values of another unit are converted, "" if they can be of one unit with the range low … high."""
    negative, positive = (low + high) / 2 < 0, low >= 0
    if negative and seen.low >= 0:
        return (
            "one is in dB and the other is not. Convert it with 10·log10(x), or give the file that is in dB."
        )
    if positive and seen.middle < 0 and seen.high - seen.low > WIDER * (high - low):
        return "it is in dB and training was not. Convert it with 10**(x/10), or give the linear file."
    ratio = max(abs(seen.low), abs(seen.high)) / max(abs(low), abs(high), 1e-30)
    if max(abs(low), abs(high)) == 0 or 1 / OTHER_UNIT < ratio < OTHER_UNIT:
        return ""
    factor = f"{float(f'{max(ratio, 1 / ratio):.1g}'):,.0f}"
    size = "larger" if ratio > 1 else "smaller"
    return (
        f"about {factor} times {size}, so it has another unit or its scale is missing. Write the scale into the file "
        "(rio edit-info, gdal_edit.py -scale), or convert it."
    )


def check_pixel(grid: Grid, pixel: float, name: str) -> list[str]:
    """Return a remark on pixels of another size than in training; DataError from a factor of two."""
    own = pixel_side(grid)
    if not own or not pixel:
        return []
    factor = max(own / pixel, pixel / own)
    if factor >= REFUSED:
        raise DataError(
            f"{name} has pixels of {own:.4g} m, the model was trained on pixels of {pixel:.4g} m and sees other "
            f"shapes. Resample it: gdalwarp -tr {pixel:g} {pixel:g} -r bilinear {name} resampled.tif"
        )
    if factor > TOLD:
        return [f"{name} has pixels of {own:.4g} m, the model was trained on pixels of {pixel:.4g} m."]
    return []
