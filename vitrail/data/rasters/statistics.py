"""Mean, deviation and range of bands, measured on training windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.labels import shorten
from vitrail.data.manifest import Row
from vitrail.data.open_image import load
from vitrail.data.rasters.bands import Band

MOST = 2000
"""Rows that are read."""

_LEAST_STD = 1e-6


class BandStatistics(NamedTuple):
    """The bands with the range of their values, and mean and standard deviation of each."""

    bands: tuple[Band, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def band_statistics(rows: Sequence[Row], root: Path, bands: Sequence[Band]) -> BandStatistics:
    """Measure the bands on at most `MOST` rows, evenly taken; missing data do not count.

    Raises:
        DataError: a band has no data, or is the same everywhere.
    """
    names = tuple(band.name for band in bands)
    some = rows[:: max(1, -(-len(rows) // MOST))]
    parts = [load(root, row.path, len(names), row.part, raw=True, bands=names).image for row in some]
    values = np.concatenate([one.reshape(-1, len(names)) for one in parts])
    empty = [name for name, gone in zip(names, np.isnan(values).all(0), strict=True) if gone]
    if empty:
        raise DataError(
            f"The bands {shorten(empty)} have no data where there are labels. Leave their files out, or label places "
            "where they have data."
        )
    mean = np.asarray(np.nanmean(values, 0, dtype=np.float64))
    std = np.asarray(np.nanstd(values, 0, dtype=np.float64))
    flat = [
        name for name, one, middle in zip(names, std, mean, strict=True) if one <= _LEAST_STD * abs(middle)
    ]
    if flat:
        raise DataError(
            f"The bands {shorten(flat)} have one value everywhere and tell nothing. Leave them out."
        )
    low, high = np.nanpercentile(values, (1, 99), axis=0)
    measured = tuple(
        band._replace(low=_plain(a), high=_plain(b)) for band, a, b in zip(bands, low, high, strict=True)
    )
    return BandStatistics(measured, tuple(map(_plain, mean)), tuple(map(_plain, std)))


def _plain(value: float) -> float:
    """Return a number with six digits, as recipes and model files show it."""
    return float(f"{value:.6g}")
