"""Read DICOM images and NIfTI volumes with the intensity window of their file; needs an optional extra."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, MissingExtraError

WINDOW = "grey values shown through the file's own window"
RANGE = "grey values stretched from the least to the greatest: the file names no window"


def is_dicom(data: bytes) -> bool:
    """Return whether the signature is that of a DICOM file."""
    return data[128:132] == b"DICM"


def dicom(data: bytes, name: str, frame: int | None = None) -> tuple[NDArray[np.uint8], str]:
    """Return a DICOM image, or one of several frames, as uint8 (height, width[, 3]), and a note on the conversion.

    Raises:
        DataError: pydicom is not installed, or the file has no image, several images, or a broken one.
    """
    pydicom, pixels = _pydicom(name)
    try:
        file = pydicom.dcmread(BytesIO(data))
        values = file.pixel_array
        if frame is not None:
            values = _frame(values, int(file.get("NumberOfFrames", 1) or 1), frame, name)
        if values.ndim == 3 and values.shape[-1] == 3:
            return _stretch(values, 0, 255 if values.dtype == np.uint8 else float(values.max())), RANGE
        if values.ndim != 2:
            raise DataError(
                f"{name} holds {values.shape[0]} frames. Save each frame as a file of its own, or name it: slice=0."
            )
        values = pixels.apply_modality_lut(values, file)
        centre, width = _first(file.get("WindowCenter")), _first(file.get("WindowWidth"))
        low, high = float(values.min()), float(values.max())
        if centre is not None and width:
            low, high = centre - width / 2, centre + width / 2
        elif "VOILUTSequence" in file:
            values = pixels.apply_voi_lut(values, file)
            low, high, centre = float(values.min()), float(values.max()), 0.0
    except DataError:
        raise
    except Exception as error:  # a decoder can raise any exception for a broken file
        raise DataError(f"{name} is broken ({error}). Copy it again from where it came from.") from error
    grey = _stretch(values, low, high)
    if file.get("PhotometricInterpretation") == "MONOCHROME1":  # 0 is white
        grey = (255 - grey).astype(np.uint8)
    return grey, WINDOW if centre is not None else RANGE


def _frame(values: NDArray[Any], frames: int, number: int, name: str) -> NDArray[Any]:
    if number >= frames:
        raise DataError(
            f"{name} holds {frames} slices, counted from 0, and no slice {number}. Mend its part."
        )
    frame: NDArray[Any] = values[number] if frames > 1 else values
    return frame


def units_of(data: bytes, name: str) -> NDArray[np.float32]:
    """Return a DICOM image as float32 (height, width[, 3]) in physical units, with NaN as padding.

    Raises:
        DataError: as `dicom`.
    """
    pydicom, pixels = _pydicom(name)
    try:
        file = pydicom.dcmread(BytesIO(data))
        stored = file.pixel_array
        colour = stored.ndim == 3 and stored.shape[-1] == 3
        if stored.ndim != 2 and not colour:
            raise DataError(f"{name} holds {stored.shape[0]} frames. Save each frame as a file of its own.")
        values: NDArray[np.float32] = np.asarray(
            stored if colour else pixels.apply_modality_lut(stored, file), np.float32
        ).copy()
        padding = file.get("PixelPaddingValue")
        if padding is not None:
            last = file.get("PixelPaddingRangeLimit", padding)
            values[(stored >= min(padding, last)) & (stored <= max(padding, last))] = np.nan
    except DataError:
        raise
    except Exception as error:  # a decoder can raise any exception for a broken file
        raise DataError(f"{name} is broken ({error}). Copy it again from where it came from.") from error
    return values


def _pydicom(name: str) -> tuple[Any, Any]:
    try:
        return import_module("pydicom"), import_module("pydicom.pixels")
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is DICOM, which needs an extra: pip install 'vitrail[medical]'."
        ) from error


def _first(value: Any) -> float | None:
    """Return the first intensity window of a file."""
    if value is None or value == "":
        return None
    try:
        return float(value)
    except TypeError:
        return float(value[0])


def _stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    shown: NDArray[np.uint8] = np.round(np.clip(scaled, 0, 255)).astype(np.uint8)
    return shown


def slices(file: Path) -> int:
    """Return the number of slices of a NIfTI volume along its last spatial axis.

    Raises:
        DataError: nibabel is not installed, or the file is broken.
    """
    return int(_volume(file, file.stat().st_mtime_ns)[0].shape[2])


def slice_of(file: Path, number: int, raw: bool = False) -> NDArray[Any]:
    """Return one slice of a NIfTI volume: uint8 (row, column) with one window for all, or raw in physical units."""
    volume, low, high = _volume(file, file.stat().st_mtime_ns)
    values = np.rot90(
        np.asarray(volume.dataobj[:, :, number])
    )  # the first axis runs to the right, the second upwards
    return values.astype(np.float32) if raw else _stretch(values, low, high)


def dicom_spacing(data: bytes) -> tuple[float, float] | None:
    """Return the pixel size (mm down, mm across) of a DICOM image; None if its file does not state it.

    Raises:
        DataError: pydicom is not installed, or the file is broken.
    """
    pydicom, _ = _pydicom("The image")
    try:
        found = pydicom.dcmread(BytesIO(data), stop_before_pixels=True).get("PixelSpacing")
        down, across = (float(one) for one in found or ())
    except ValueError:
        return None
    except Exception as error:  # a decoder can raise any exception for a broken file
        raise DataError(f"The image is broken ({error}).") from error
    return (down, across) if min(down, across) > 0 else None


def volume_spacing(file: Path) -> tuple[float, float] | None:
    """Return (mm down, mm across) of a pixel of the slices of a NIfTI volume; None where it states no unit of length.

    Raises:
        DataError: nibabel is not installed, or the file is broken.
    """
    header = _volume(file, file.stat().st_mtime_ns)[0].header
    unit = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0])
    across, down = (float(one) for one in header.get_zooms()[:2])  # `slice_of` turns them
    return None if unit is None or min(across, down) <= 0 else (down * unit, across * unit)


class DicomPlace(NamedTuple):
    """Where a DICOM slice lies in the body, in mm to the left, to the back and upwards, where its file tells."""

    position: tuple[float, float, float] | None
    right: NDArray[np.float64]  # where columns run
    down: NDArray[np.float64]  # where rows run
    number: int  # in its series


def place_of(data: bytes, name: str) -> DicomPlace:
    """Return where a DICOM slice lies.

    Raises:
        DataError: pydicom is not installed, or the file is broken.
    """
    pydicom, _ = _pydicom(name)
    try:
        file = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
        axes = np.array([float(one) for one in file.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0)])
        where = file.get("ImagePositionPatient")
        known = where is not None and "ImageOrientationPatient" in file
        position = (float(where[0]), float(where[1]), float(where[2])) if known else None
        return DicomPlace(position, axes[:3], axes[3:], int(file.get("InstanceNumber") or 0))
    except Exception as error:  # a decoder can raise any exception for a broken file
        raise DataError(f"{name} is broken ({error}). Copy it again from where it came from.") from error


def affine_of(file: Path) -> NDArray[np.float64]:
    """Return the matrix from the voxels of a NIfTI volume to mm to the right, to the front and upwards: (4, 4).

    Raises:
        DataError: nibabel is not installed, or the file is broken.
    """
    matrix: NDArray[np.float64] = np.asarray(_volume(file, file.stat().st_mtime_ns)[0].affine, np.float64)
    return matrix


def labels_of(file: Path) -> NDArray[Any]:
    """Return the numbers of a NIfTI volume of labels, whole ones as such: (axis, axis, slice).

    Raises:
        DataError: nibabel is not installed, or the file is broken.
    """
    values: NDArray[Any] = np.asanyarray(_volume(file, file.stat().st_mtime_ns)[0].dataobj)
    whole: NDArray[Any] = values.astype(np.int64)
    return whole if np.array_equal(whole, values) else values


@lru_cache(maxsize=4)
def _volume(file: Path, changed: int) -> tuple[Any, float, float]:
    try:
        nib: Any = import_module("nibabel")
    except ImportError as error:
        raise MissingExtraError(
            f"{file.name} is NIfTI, which needs an extra: pip install 'vitrail[medical]'."
        ) from error
    try:
        volume: Any = nib.load(file)
        if len(volume.shape) != 3:
            raise DataError(
                f"{file.name} has {len(volume.shape)} axes. Save one volume of three axes a file."
            )
        low, high = float(volume.header["cal_min"]), float(volume.header["cal_max"])
        if high <= low:
            values = np.asanyarray(volume.dataobj)
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(f"{file.name} is broken ({error}). Copy it again from where it came from.") from error
    return volume, low, high
