"""Images and figures as files and as data URIs of self-contained pages."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vitrail.core.files import replace
from vitrail.core.text import MADE_BY

JPEG_SIDE = 65_500
"""Pixels of a side that a JPEG can have."""


def data_uri(picture: Image.Image | Figure) -> str:
    """Return an image or figure as a data: address, for pages that are one file."""
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode()


def _png(picture: Image.Image | Figure) -> bytes:
    buffer = BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", dpi=130, bbox_inches="tight", metadata={"Software": MADE_BY})
    else:
        picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_image(path: Path, picture: Image.Image | Figure) -> None:
    """Write an image in one step; a PNG, as figures are, says that it is ours; others in the format of the suffix."""
    if isinstance(picture, Figure):
        replace(path, lambda temporary: temporary.write_bytes(_png(picture)))
    elif path.suffix.lower() == ".png":
        replace(path, lambda temporary: temporary.write_bytes(png_of(picture)))
    else:
        replace(path, picture.save)


def png_of(picture: Image.Image) -> bytes:
    """Return an image as a PNG that says that it is ours; palettes stay."""
    said, buffer = PngInfo(), BytesIO()
    said.add_text("Software", MADE_BY)
    picture.save(buffer, format="PNG", pnginfo=said)
    return buffer.getvalue()


def photo_uri(picture: Image.Image, quality: int = 82) -> str:
    """Return a photograph as a data: address in JPEG, a tenth of its size in PNG."""
    buffer, rgb = BytesIO(), picture.convert("RGB")
    if max(rgb.size) > JPEG_SIDE:
        rgb.thumbnail((JPEG_SIDE, JPEG_SIDE))
    rgb.save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
