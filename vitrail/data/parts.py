"""Parts of a file with many samples: a window of an image, a page of a TIFF, a slice of a volume, frames of a video.

A row has a part beside its path: `window=left,top,right,bottom` in pixels, `page=3`, `slice=40`, counted from 0,
`raster=left,top,right,bottom`, a window of named bands that may reach outside of its raster (`data/rasters`), and
`frames=first,stop`, frames of a video or of a folder of frames in the order in which they are shown (`data/videos`).
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data import containers, medical, tiff
from vitrail.data.decode import MAX_PIXELS

_RULES = {"window": 4, "page": 1, "slice": 1, "raster": 4, "frames": 2}
_GRAMMAR = re.compile(r"([a-z]+)=(-?\d+(?:,-?\d+)*)")
_RASTER, _FRAMES = "raster=", "frames="
_PAGED = ("TIFF", "GIF", "WEBP", "PNG")


class Part(NamedTuple):
    """A parsed part: its kind and its numbers."""

    kind: str
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, text: str, path: str) -> Part:
        """Parse a part.

        Raises:
            DataError: the kind is unknown, or its numbers are invalid.
        """
        match = _GRAMMAR.fullmatch(text)
        kind = match[1] if match else text.partition("=")[0]
        if kind not in _RULES:
            raise DataError(f"{path} asks for the part {text!r}. There are: {', '.join(_RULES)}.")
        numbers = tuple(map(int, match[2].split(","))) if match else ()
        inside = kind == "raster" or min(numbers, default=0) >= 0
        if len(numbers) != _RULES[kind] or not inside:
            raise DataError(
                f"{path} asks for the part {text!r}. Write window=left,top,right,bottom, page=3, slice=40, "
                "raster=left,top,right,bottom or frames=first,stop."
            )
        return cls(kind, numbers)


def is_window(part: str) -> bool:
    """Return whether a part is a window, which is cut out of the decoded image."""
    return part.startswith("window=")


def is_raster(part: str) -> bool:
    """Return whether a part is a window of a raster, whose file is never read whole."""
    return part.startswith(_RASTER)


def is_frames(part: str) -> bool:
    """Return whether a part is frames of a video."""
    return part.startswith(_FRAMES)


def frames_part(first: int, stop: int) -> str:
    """Return the part of the frames of a video from `first` to before `stop`."""
    return f"{_FRAMES}{first},{stop}"


def raster_part(window: tuple[int, int, int, int]) -> str:
    """Return the part of a window (left, top, right, bottom) of a raster."""
    return _RASTER + ",".join(map(str, window))


def raster_window(part: str, path: str) -> tuple[int, int, int, int]:
    """Return the window (left, top, right, bottom) of such a part; DataError if it is none."""
    left, top, right, bottom = Part.of(part, path).numbers
    if left >= right or top >= bottom:
        raise DataError(f"{path} asks for the part {part!r}, which is empty. Mend it.")
    return left, top, right, bottom


def is_volume(path: str) -> bool:
    """Return whether a file is a volume whose slices are read from the file itself."""
    return path.endswith((".nii", ".nii.gz"))


def cut(data: bytes, part: Part, path: str) -> bytes:
    """Return a page of an image file, or a slice of a DICOM file, as the bytes of a separate image.

    Raises:
        DataError: the part does not exist in the file.
    """
    number = part.numbers[0]
    if part.kind == "page":
        return _page(data, number, path)
    if not medical.is_dicom(data):
        raise DataError(f"{path} has no slices: they are of NIfTI and DICOM files. Write page=3 for a page.")
    return containers.as_npy(medical.dicom(data, path, number)[0])


def _page(data: bytes, number: int, path: str) -> bytes:
    try:
        with Image.open(BytesIO(data), formats=_PAGED) as image:
            pages = getattr(image, "n_frames", 1)
            if number >= pages:
                raise DataError(
                    f"{path} has {pages} pages, counted from 0, and no page {number}. Mend its part."
                )
            image.seek(number)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path} has a page of more than {MAX_PIXELS:,} pixels. Make it smaller.")
            if (alone := tiff.page(data, number)) is not None:
                return alone
            written = BytesIO()
            image.save(written, "TIFF")  # keeps every mode to the bit
            return written.getvalue()
    except DataError:
        raise
    except Exception as error:  # a decoder fed with a broken file may raise anything at all
        raise DataError(f"{path} has no page {number} that can be read ({error}). Copy it again.") from error
