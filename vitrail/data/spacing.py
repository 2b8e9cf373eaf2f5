"""Read the pixel size from DICOM, NIfTI, and TIFF with a resolution in centimetres."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from vitrail.core.errors import DataError
from vitrail.data import medical, parts, tiff
from vitrail.data.labels import is_image
from vitrail.data.manifest import Row
from vitrail.data.open_image import place, read

Spacing = tuple[float, float] | None
"""Pixel size (mm down, mm across); None if the file does not state it."""

_STATING = (".tif", ".tiff", ".dcm", ".dicom", ".ima")


def stated(data: bytes | Path) -> Spacing:
    """Return the pixel size of an image file; None if it is not stated or cannot be read."""
    if isinstance(data, Path):
        if not _may_state(data.name):
            return None
        try:
            data = data.read_bytes()
        except OSError:
            return None
    try:
        if medical.is_dicom(data):
            return medical.dicom_spacing(data)
        return tiff.spacing(data) if tiff.is_tiff(data) else None
    except (DataError, tiff.TiffError):
        return None  # the function that reads its pixels raises the error


def of_row(row: Row, root: Path) -> Spacing:
    """Return the pixel size of a row's image; None for windows of a raster, whose areas are counted by its grid."""
    if parts.is_raster(row.part):
        return None
    where = place(root, row.path)
    if parts.is_volume(where.file.name):
        return medical.volume_spacing(where.file)
    return stated(read(root, row.path)) if _may_state(where.inside or where.file.name) else None


def _may_state(name: str) -> bool:
    """Return whether a file name can be one with a pixel size; DICOM files often have no suffix, or a number."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in _STATING or not (is_image(name) or suffix in {".npy", ".npz"})
