"""Write images and figures as files and as data URIs for self-contained pages."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vitrail.core.files import replace
from vitrail.core.text import MADE_BY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JPEG_SIDE = 65_500
"""The longest side of a JPEG in pixels."""


def data_uri(picture: Image.Image | Figure) -> str:
    """Return an image or figure as a data URI, for self-contained pages."""
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode()


def _png(picture: Image.Image | Figure) -> bytes:
    buffer = BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(buffer, format="PNG", optimize=True)
    else:
        picture.savefig(buffer, format="png", dpi=130, bbox_inches="tight", metadata={"Software": MADE_BY})
    return buffer.getvalue()


def write_image(path: Path, picture: Image.Image | Figure) -> None:
    """Write an image or figure atomically, in the format of the suffix; figures are PNG. A PNG names vitrail."""
    if not isinstance(picture, Image.Image):
        replace(path, lambda temporary: temporary.write_bytes(_png(picture)))
    elif path.suffix.lower() == ".png":
        replace(path, lambda temporary: temporary.write_bytes(png_of(picture)))
    else:
        replace(path, picture.save)


def png_of(picture: Image.Image) -> bytes:
    """Return an image as a PNG whose metadata names vitrail; a palette is kept."""
    metadata, buffer = PngInfo(), BytesIO()
    metadata.add_text("Software", MADE_BY)
    picture.save(buffer, format="PNG", pnginfo=metadata)
    return buffer.getvalue()


def photo_uri(picture: Image.Image, quality: int = 82) -> str:
    """Return a photograph as a data URI in JPEG, a tenth of its size in PNG."""
    buffer, rgb = BytesIO(), picture.convert("RGB")
    if max(rgb.size) > JPEG_SIDE:
        rgb.thumbnail((JPEG_SIDE, JPEG_SIDE))
    rgb.save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
