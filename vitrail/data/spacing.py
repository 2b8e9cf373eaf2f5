"""How large a pixel is, where its file states it: DICOM, NIfTI, and TIFF whose resolution is one of centimetres."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from vitrail.core.errors import DataError
from vitrail.data import medical, parts, tiff
from vitrail.data.labels import is_image
from vitrail.data.manifest import Row
from vitrail.data.open_image import place, read

Spacing = tuple[float, float] | None
"""(mm down, mm across) of a pixel; None where nothing states it."""

_STATING = (".tif", ".tiff", ".dcm", ".dicom", ".ima")


def stated(data: bytes | Path) -> Spacing:
    """Return what an image file states; None where it states nothing, or cannot be read."""
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
        return None  # who reads its pixels says what is wrong


def of_row(row: Row, root: Path) -> Spacing:
    """Return what the file of a row's image states."""
    where = place(root, row.path)
    if parts.is_volume(where.file.name):
        return medical.volume_spacing(where.file)
    return stated(read(root, row.path)) if _may_state(where.inside or where.file.name) else None


def _may_state(name: str) -> bool:
    """Tell by a name whether a file may state a spacing; DICOM files often have no suffix, or a number for one."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in _STATING or not (is_image(name) or suffix in {".npy", ".npz"})
