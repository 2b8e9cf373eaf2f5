"""ICC profiles and TIFF files of other colours, written here byte by byte."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
from pictures import encode
from PIL import Image, ImageCms

SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
"""Primaries of sRGB as profiles state them (XYZ, adapted to D50)."""

P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))


def srgb() -> bytes:
    """Return the profile of sRGB as Little CMS writes it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def matrix_profile(primaries: Any, curve: Any) -> bytes:
    """Return a profile of a screen: its primaries, and its curve as a gamma or as values of 0 to 65535."""
    tags = {key: _xyz(*one) for key, one in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve))
    return _profile(b"RGB ", b"mntr", tags | {b"wtpt": _xyz(0.9642, 1, 0.8249)})


def grey_profile(gamma: float) -> bytes:
    """Return a profile of greys."""
    return _profile(b"GRAY", b"mntr", {b"kTRC": _curve(gamma), b"wtpt": _xyz(0.9642, 1, 0.8249)})


def cmyk_profile() -> bytes:
    """Return a profile of inks, of which all but the fourth count a tenth: nobody prints so."""
    grid, channels = 2, 4
    corners = np.stack(np.meshgrid(*[np.arange(grid)] * channels, indexing="ij"), -1).reshape(-1, channels)
    light = 1 - (0.1 * corners[:, :3].mean(1) + 0.9 * corners[:, 3])
    lab = np.stack([light * 255, np.full(len(light), 128.0), np.full(len(light), 128.0)], -1).round()
    ramp = np.arange(256, dtype=np.uint8).tobytes()
    head = b"mft1" + bytes(4) + bytes([channels, 3, grid, 0])
    head += b"".join(struct.pack(">i", int(one * 65536)) for one in np.eye(3).ravel())
    table = head + ramp * channels + lab.astype(np.uint8).tobytes() + ramp * 3
    return _profile(b"CMYK", b"prtr", {b"A2B0": table, b"wtpt": _xyz(0.9642, 1, 0.8249)}, b"Lab ")


def srgb_curve() -> list[int]:
    """Return the curve of sRGB in 1,024 steps, as the profile does that most cameras and scanners embed."""
    x = np.linspace(0, 1, 1024)
    y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return [int(value) for value in np.round(65535 * y)]


def heic(image: np.ndarray[Any, Any] | Image.Image, library: Any, **options: Any) -> bytes:
    """Return a HEIC file as iPhones write one, without loss."""
    if isinstance(image, np.ndarray):
        image = Image.open(BytesIO(encode(image)))
    data = BytesIO()
    library.from_pillow(image).save(data, quality=-1, **options)
    return data.getvalue()


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(one * 65536)) for one in values)


def _curve(curve: Any) -> bytes:
    values = [round(curve * 256)] if isinstance(curve, float) else curve
    return b"curv" + bytes(4) + struct.pack(f">I{len(values)}H", len(values), *values)


def _profile(space: bytes, device: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    text = b"made"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(80),
        b"cprt": b"text" + bytes(4) + text + b"\0",
        **tags,
    }
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for key, data in tags.items():
        table += key + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, device, space, pcs)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(0.9642, 1, 0.8249)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
