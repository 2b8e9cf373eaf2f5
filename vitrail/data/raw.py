"""Images with the values of their files: uint8, uint16 or float32, with NaN for missing data."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data import tiff
from vitrail.data.medical import units_of

UNITS = "numbers in the file's own units"

_RANGES = {"uint8": 255.0, "uint16": 65535.0}
_SEEN = (2, 98)  # percentiles displayed as black and white


def as_numbers(values: NDArray[Any], no_data: float | None = None) -> tuple[NDArray[Any], float]:
    """Return an array and its scale: uint8 or uint16 if it is one and has no missing data, otherwise float32.

    Values equal to `no_data`, and values that are not finite, become NaN.
    """
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    scale = _RANGES.get(values.dtype.name, 1.0)
    gaps = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros((), np.bool_)
    if no_data is not None:
        gaps = gaps | (values == no_data)
    if scale > 1 and not gaps.any():
        return np.ascontiguousarray(values), scale
    with np.errstate(over="ignore"):  # values outside the range of float32 are missing data
        floats = values.astype(np.float32)
    floats[np.broadcast_to(gaps, floats.shape) | np.isinf(floats)] = np.nan
    return floats, scale


def from_tiff(data: bytes, name: str, most: int) -> tiff.Bands | None:
    """Read a TIFF file with a limited number of pixels; None for other files, and for those that Pillow reads.

    Raises:
        DataError: the file is broken or too large.
    """
    if not tiff.is_tiff(data):
        return None
    try:
        shape = tiff.shape_of(data)
        if shape is not None and shape[0] * shape[1] * max(1, shape[2] / 4) > most:
            raise DataError(
                f"{name} has {shape[0]:,} x {shape[1]:,} pixels of {shape[2]} bands and is not opened. Cut it into "
                "smaller pieces."
            )
        return None if shape is None else tiff.read(data)
    except tiff.TiffError as error:
        raise DataError(
            f"{name} is broken ({error}). Copy it again from where it came from, or delete it."
        ) from error


def from_dicom(data: bytes, name: str) -> NDArray[np.float32]:
    """Return a DICOM image in physical units (height, width, channels), such as Hounsfield units.

    Raises:
        DataError: as `medical.dicom`.
    """
    values = units_of(data, name)
    return values[..., None] if values.ndim == 2 else values


def deep_colour(data: bytes) -> NDArray[Any] | None:
    """Return a 16-bit colour PNG as uint16; None for other files.

    Pillow keeps only the high byte. With the byte order reversed, it keeps the low byte.
    """
    bytes_apart = []
    for order in ("B", "L"):
        with Image.open(BytesIO(data)) as image:
            tiles: Any = getattr(image, "tile", ())
            if image.format != "PNG" or len(tiles) != 1 or tiles[0].args != f"{image.mode};16B":
                return None
            if image.mode not in {"RGB", "RGBA"}:
                return None
            tiles[0] = tiles[0]._replace(args=f"{image.mode};16{order}")
            bytes_apart.append(np.asarray(image).astype(np.uint16))
    high, low = bytes_apart
    return (high << 8) | low


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rotate an array (height, width, channels) as Pillow rotates an image with the same tag."""
    turns: dict[int, NDArray[Any]] = {
        2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1], 5: array.swapaxes(0, 1),
        6: array.swapaxes(0, 1)[:, ::-1], 7: array[::-1, ::-1].swapaxes(0, 1), 8: array.swapaxes(0, 1)[::-1],
    }  # fmt: skip
    return np.ascontiguousarray(turns.get(orientation, array))


def shown(image: NDArray[Any], ranges: Sequence[tuple[float, float] | None] = ()) -> NDArray[np.uint8]:
    """Return raw values (height, width, bands) as uint8 (height, width, 3); missing data is black.

    Each band is stretched to its range in `ranges`, or to its own values where that is None.
    """
    bands = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    values = bands.astype(np.float32)
    known = [one or _range_of(values[..., i]) for i, one in enumerate(ranges or (None,) * bands.shape[2])]
    low, high = (np.array(ends, np.float32) for ends in zip(*known, strict=True))
    grey = np.nan_to_num((values - low) / np.maximum(high - low, 1e-12), nan=0.0).clip(0, 1)
    return np.ascontiguousarray(np.broadcast_to(np.round(255 * grey), (*image.shape[:2], 3))).astype(np.uint8)


def _range_of(band: NDArray[np.float32]) -> tuple[float, float]:
    """Return the values that are shown as black and white; (0, 1) where there are no data."""
    if np.isnan(band).all():
        return 0.0, 1.0
    low, high = np.nanpercentile(band, _SEEN)
    return float(low), float(high)
