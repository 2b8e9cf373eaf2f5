"""What the head of an image file says, read without decoding it: its format and its size. No torch here."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import NamedTuple

from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from PIL import Image

from vitrail.data.decode import FORMATS, MAX_PIXELS

GUESS = 4
"""Pixels a byte of files whose head is not understood: the worker will say what is wrong with them."""


NUMPY = b"\x93NUMPY"


class Head(NamedTuple):
    """Format and size of an image file; a size of 0 if its head cannot be read."""

    kind: str
    width: int = 0
    height: int = 0
    pixels: int = 0


def head_of(data: bytes) -> Head:
    """Return what the head of a file says."""
    try:
        if data.startswith(NUMPY):
            return _array(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _opened(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Head("", pixels=MAX_PIXELS + 1)
    except Exception:  # a broken head may raise anything; so may what is no image of Pillow's
        return Head("", pixels=GUESS * len(data))


def _array(data: bytes) -> Head:
    stream = BytesIO(data)
    read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[read_magic(stream)]
    height, width = read(stream)[0][:2]
    return Head("NPY", width, height, width * height)


def _opened(data: bytes) -> Head:
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        return Head(image.format or "", image.width, image.height, image.width * image.height)
