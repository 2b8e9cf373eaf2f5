"""Images for pages: upright, small, as JPEG or PNG. Bytes from a user are decoded first, never sent as they are."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from fastapi.responses import FileResponse, Response
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.errors import VitrailError
from vitrail.data.decode import decode
from vitrail.data.manifest import Row
from vitrail.data.open_image import is_clip, load
from vitrail.studio.run_files import RunFiles

SIZES = (256, 512, 1024)
"""Sides of the images that pages ask for, in pixels."""

LARGEST = 1600
"""Longest side of an image that is sent, in pixels."""

SMALL = 128
"""An image of fewer pixels a side is enlarged without loss: its pixels are visible squares."""

MISSING = Path(__file__).parent / "static" / "missing.svg"


def encoded(image: Image.Image, side: int = LARGEST) -> Response:
    """Return an image of at most so many pixels a side; its address changes with its content, so browsers keep it."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer, coarse = BytesIO(), max(small.size) < SMALL
    if coarse:
        times = -(-SMALL // max(small.size))
        small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    small.save(buffer, "PNG" if coarse else "JPEG", quality=88)
    kind = "image/png" if coarse else "image/jpeg"
    return Response(buffer.getvalue(), media_type=kind, headers={"Cache-Control": "private, max-age=86400"})


def missing() -> Response:
    """Return a drawing that says that the image is not here."""
    return FileResponse(MISSING, 404, media_type="image/svg+xml")


def image_of_row(run: RunFiles, row: Row) -> Image.Image:
    """Return an image of a run. DataError if it is not where the run saw it."""
    root, (channels, steps) = run.root() or run.folder, run.bands()
    if steps is None:
        return visible(load(root, row.path, channels, row.part).image)
    names = steps.band_names
    return visible(steps.visible(load(root, row.path, channels, row.part, raw=True, bands=names).image))


def image_of_file(run: RunFiles, path: Path) -> Image.Image:
    """Return a file as an image, read as the model of a run reads it."""
    channels, steps = run.bands()
    if is_clip(path.name):
        return visible(load(path.parent, path.name, channels).image)
    if steps is None:
        return visible(decode(path, channels, path.name).image)
    from vitrail.data.rasters.whole_file import decode_for

    return visible(steps.visible(decode_for(steps, path, path.name)))


def visible(array: NDArray[Any]) -> Image.Image:
    """Return an array (height, width, channels) as an image."""
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def small_image_of_row(run: RunFiles, id: str, side: int) -> Response:
    """Return an image of a run in one of the sizes of pages, or the drawing for a missing one."""
    try:
        return encoded(image_of_row(run, run.row(id)), side if side in SIZES else SIZES[0])
    except VitrailError:  # moved or changed since the training: the page is right without it
        return missing()
