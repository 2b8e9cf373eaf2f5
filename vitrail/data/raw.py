"""Images in the numbers of their files: uint8, uint16 or float32, with NaN where no data are."""

from __future__ import annotations

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
_SEEN = (2, 98)  # percentiles that are shown as black and white


def as_numbers(values: NDArray[Any], no_data: float | None = None) -> tuple[NDArray[Any], float]:
    """Return an array as uint8 or uint16, where it is that and has data everywhere, else as float32; and its scale.

    What equals `no_data`, and what is no finite number, becomes NaN.
    """
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    scale = _RANGES.get(values.dtype.name, 1.0)
    gaps = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros((), np.bool_)
    if no_data is not None:
        gaps = gaps | (values == no_data)
    if scale > 1 and not gaps.any():
        return np.ascontiguousarray(values), scale
    with np.errstate(over="ignore"):  # what float32 cannot hold is no datum
        floats = values.astype(np.float32)
    floats[np.broadcast_to(gaps, floats.shape) | np.isinf(floats)] = np.nan
    return floats, scale


def from_tiff(data: bytes, name: str, most: int) -> tiff.Bands | None:
    """Read a TIFF file of at most so many pixels; None where it is none, or is one for Pillow.

    Raises:
        DataError: broken or too large.
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
    """Return a DICOM image in its own units (height, width, channels), such as Hounsfield units.

    Raises:
        DataError: as `medical.dicom`.
    """
    values = units_of(data, name)
    return values[..., None] if values.ndim == 2 else values


def deep_colour(data: bytes) -> NDArray[Any] | None:
    """Return a PNG in colour of 16 bits as uint16; None where it is none.

    Pillow keeps the high byte of two. Told that the bytes stand the other way round, it keeps the low one.
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
    """Turn an array (height, width, channels) as Pillow turns an image by the same tag."""
    turns: dict[int, NDArray[Any]] = {
        2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1], 5: array.swapaxes(0, 1),
        6: array.swapaxes(0, 1)[:, ::-1], 7: array[::-1, ::-1].swapaxes(0, 1), 8: array.swapaxes(0, 1)[::-1],
    }  # fmt: skip
    return np.ascontiguousarray(turns.get(orientation, array))


def shown(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return raw numbers (height, width, bands) as uint8 (height, width, 3), each band stretched over its range."""
    bands = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    values = bands.astype(np.float32)
    if np.isnan(values).all():
        return np.zeros((*image.shape[:2], 3), np.uint8)
    low, high = np.nanpercentile(values, _SEEN, axis=(0, 1))
    grey = np.nan_to_num((values - low) / np.maximum(high - low, 1e-12), nan=0.0).clip(0, 1)
    return np.ascontiguousarray(np.broadcast_to(np.round(255 * grey), (*image.shape[:2], 3))).astype(np.uint8)
