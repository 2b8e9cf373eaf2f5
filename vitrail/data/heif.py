"""HEIC photographs, as iPhones take them, through an extra of the package; and what such files say of their colours."""

from __future__ import annotations

import re
import struct
from importlib import import_module
from io import BytesIO
from typing import Any

from PIL import Image

from vitrail.core.errors import MissingExtraError

WIDE = "colours of a wider range, stated without a profile: taken as sRGB"

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_USUAL_PRIMARIES = {1, 2, 5, 6, 7}  # of television, within a few levels of sRGB; 2: not stated
_HIGH_RANGE = {16, 18}  # transfers of HDR
_PROPERTIES = 1 << 16  # bytes from the beginning within which the properties of images stand


def is_heif(data: bytes) -> bool:
    """Tell a HEIC or HEIF file by its mark; AVIF, which lies in the same container, is none."""
    if data[4:8] != b"ftyp" or data[8:12] not in _BRANDS:
        return False
    return b"avif" not in data[8 : min(64, struct.unpack_from(">I", data)[0])]


def open_heif(data: bytes, name: str) -> Image.Image:
    """Open a HEIC file as Pillow opens others; nothing is registered with Pillow.

    Raises:
        MissingExtraError: pillow-heif is not installed.
    """
    try:
        library: Any = import_module("pillow_heif")
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is a HEIC image, as iPhones take them, which needs an extra: pip install 'vitrail[heif]'. "
            "Or save it as JPEG."
        ) from error
    image: Image.Image = library.HeifImageFile(BytesIO(data))
    return image


def bits_of(data: bytes) -> int:
    """Return how many bits a value has in a HEIC, AVIF or JPEG 2000 file, 8 where it does not say."""
    if data[4:8] == b"ftyp":
        head = data[:_PROPERTIES]
        return max((head[one.end() + 5] for one in re.finditer(b"pixi", head[:-6])), default=8)
    start = data.find(b"\xff\x4f\xff\x51", 0, _PROPERTIES)
    return (data[start + 42] & 0x7F) + 1 if 0 <= start < len(data) - 42 else 8


def is_wide(data: bytes) -> bool:
    """Tell colours of a wider range than sRGB that a HEIC or AVIF file states by number."""
    head = data[:_PROPERTIES]
    stated = [struct.unpack_from(">HH", head, one.end()) for one in re.finditer(b"colrnclx", head[:-4])]
    return bool(stated) and all(
        primaries not in _USUAL_PRIMARIES or transfer in _HIGH_RANGE for primaries, transfer in stated
    )
