"""Read HEIC photographs, the format of iPhones, with an optional extra; and the colour information of such files."""

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
_USUAL_PRIMARIES = {1, 2, 5, 6, 7}  # television standards, within a few levels of sRGB; 2: not stated
_HIGH_RANGE = {16, 18}  # transfer functions of HDR
_PROPERTIES = 1 << 16  # the properties of images are within this number of bytes


def is_heif(data: bytes) -> bool:
    """Return whether the signature is that of HEIC or HEIF; AVIF has the same container but does not count."""
    if data[4:8] != b"ftyp" or data[8:12] not in _BRANDS:
        return False
    return b"avif" not in data[8 : min(64, struct.unpack_from(">I", data)[0])]


def open_heif(data: bytes, name: str) -> Image.Image:
    """Open a HEIC file as a Pillow image, without registering a plugin in Pillow.

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
    """Return the bits per value of a HEIC, AVIF or JPEG 2000 file; 8 if it does not state them."""
    if data[4:8] == b"ftyp":
        head = data[:_PROPERTIES]
        return max((head[one.end() + 5] for one in re.finditer(b"pixi", head[:-6])), default=8)
    start = data.find(b"\xff\x4f\xff\x51", 0, _PROPERTIES)
    return (data[start + 42] & 0x7F) + 1 if 0 <= start < len(data) - 42 else 8


def is_wide(data: bytes) -> bool:
    """Return whether a HEIC or AVIF file states, by number, a colour range wider than sRGB."""
    head = data[:_PROPERTIES]
    stated = [struct.unpack_from(">HH", head, one.end()) for one in re.finditer(b"colrnclx", head[:-4])]
    return bool(stated) and all(
        primaries not in _USUAL_PRIMARIES or transfer in _HIGH_RANGE for primaries, transfer in stated
    )
