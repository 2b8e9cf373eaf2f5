"""A small scene with named bands and its labels, for tests of models on rasters."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

BANDS = ("VV", "B02", "B03", "B04", "B08")
UNITS = ("dB", "reflectance", "reflectance", "reflectance", "reflectance")
CLASSES = ("bog", "fen", "water")
_LEVELS = np.array([[-9, 0.04, 0.06, 0.05, 0.3], [-12, 0.05, 0.09, 0.07, 0.4], [-19, 0.06, 0.05, 0.03, 0.02]])
_NOISE = np.array([1.5, 0.01, 0.01, 0.01, 0.03])


def values(side: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 values (bands, side, side) in their units, and classes 1 to 3 in squares of 12 pixels."""
    draw = np.random.default_rng(seed)
    squares = draw.permutation(np.resize(np.arange(3), (-(-side // 12)) ** 2)).reshape(-(-side // 12), -1)
    classes = np.kron(squares, np.ones((12, 12), np.uint8))[:side, :side].astype(np.uint8)
    found = _LEVELS[classes] + _NOISE * draw.standard_normal((side, side, len(BANDS)))
    return found.transpose(2, 0, 1).astype(np.float32), classes + 1


def write(
    path: Path, bands: np.ndarray, names: tuple[str, ...] = BANDS, units: tuple[str, ...] = UNITS
) -> Path:
    """Write (bands, height, width) as a georeferenced GeoTIFF with named bands; NaN is no data."""
    place = {"crs": "EPSG:32620", "transform": from_origin(300_000, 5_000_000, 10, 10)}
    form = {"driver": "GTiff", "count": len(bands), "dtype": bands.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", height=bands.shape[1], width=bands.shape[2], **form, **place) as file:
            file.write(bands)
            file.descriptions, file.units = names, units
    return path


def scene(folder: Path, side: int = 96) -> tuple[Path, Path]:
    """Write scene.tif and its labels.tif (classes 1 to 3, in every third pixel; 0 is no label); return both."""
    bands, classes = values(side)
    thin = np.where(np.add.outer(np.arange(side), np.arange(side)) % 3 == 0, classes, 0).astype(np.uint8)
    labels = write(folder / "labels.tif", thin[None], ("class",), ("",))
    return write(folder / "scene.tif", bands), labels


def window(path: Path, side: int = 8, at: int = 0, names: tuple[str, ...] = BANDS) -> Path:
    """Write one window of a scene as a file with these bands, in this order."""
    bands, _ = values()
    chosen = [BANDS.index(name) for name in names]
    units = tuple(UNITS[place] for place in chosen)
    return write(path, bands[chosen, at : at + side, at : at + side], names, units)
