"""Read TIFF files with their values: any number of bands, 8 to 64 bits, integer or float, band names, no-data value.

Pillow reads photographs. With more than four bands, or 16-bit colour, it reads nothing or only half. This module reads
the layout of the file; Pillow's libtiff decompresses its pieces (LZW, Deflate, PackBits, LZMA, Zstandard).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from html import unescape
from io import BytesIO
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Tags = Mapping[int, tuple[Any, ...]]

_WIDTH, _HEIGHT, _BITS, _PACKING, _MEANING = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _FORMAT = 322, 323, 324, 325, 339
_KIND, _ORIENTATION, _METADATA, _NO_DATA = 254, 274, 42112, 42113
_EXTRA, _SUBSAMPLING = 338, 530

_PLAIN = 1
_DEFLATE = {8, 32946}
_PACKED = {5, 32773, 34925, 50000}  # LZW, PackBits, LZMA, Zstandard
_WHITE_IS_ZERO, _GREY, _COLOUR = 0, 1, 2
_YCBCR = 6
_COLOURS: Mapping[int, int] = MappingProxyType(
    {2: 3, 5: 4, 6: 3, 8: 3}
)  # channels; grey and palettes have one
_TRANSPARENCY = {1, 2, 999}  # kinds of an extra band; 0 or no kind is unknown, often infrared
_TYPES: Mapping[int, str] = MappingProxyType(
    {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
)
_TEXT = {2, 7}
_RATIONAL = 5  # two numbers each
_ACROSS, _DOWN, _UNIT, _CENTIMETRE = 282, 283, 296, 3
_SCREENS = (72, 96, 150, 200, 300, 600)
"""Dots per inch that programs write for screens and printers, without relation to the image."""
_MOST_TAGS = 4096


class Bands(NamedTuple):
    """The first image of a TIFF file: (height, width, bands), before rotation by its orientation."""

    values: NDArray[Any]
    names: tuple[str, ...]  # of the bands, where the file gives them
    no_data: float | None
    orientation: int
    more: bool  # whether another image follows


class Samples(NamedTuple):
    """Meaning of the values of a pixel, and the orientation of the image, from the tags of a file."""

    bands: int
    colours: int  # the first so many bands
    clear: bool  # whether the next one is transparency
    ycbcr: bool
    coarse: bool  # whether several pixels share their colour, in a file that is not packed
    white_is_zero: bool
    orientation: int

    @property
    def left_out(self) -> int:
        """Number of bands that are neither colour nor transparency."""
        return max(0, self.bands - self.colours - self.clear)


class TiffError(ValueError):
    """A broken TIFF file; the message is the reason."""


class _Piece(NamedTuple):
    """A strip or a tile: its position in the file and in the image."""

    start: int
    size: int
    top: int
    left: int
    plane: int


def is_tiff(data: bytes) -> bool:
    """Return whether the signature is that of a TIFF or BigTIFF file."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def shape_of(data: bytes) -> tuple[int, int, int] | None:
    """Return (height, width, bands) of the first image, or None if this module does not read it.

    Raises:
        TiffError: broken.
    """
    tags, _ = _directory(data, None)
    return _shape(tags) if _is_read(tags) else None


def read(data: bytes) -> Bands:
    """Read the first image of a file for which `shape_of` returns a shape.

    Raises:
        TiffError: broken.
    """
    tags, following = _directory(data, None)
    height, width, bands = _shape(tags)
    apart = _one(tags, _PLANAR, 1) == 2
    nothing = _no_data(tags)
    values = np.zeros((height, width, bands), _dtype(data, tags))
    if nothing is not None:
        values += np.asarray(nothing).astype(values.dtype)
    for piece in _pieces(tags):
        if piece.start == piece.size == 0:
            continue  # a piece that was not written: it has no data
        part = _unpacked(data, piece, tags)[: height - piece.top, : width - piece.left]
        high, wide = part.shape[:2]
        where = slice(piece.plane, piece.plane + 1) if apart else slice(None)
        values[piece.top : piece.top + high, piece.left : piece.left + wide, where] = part
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if _one(tags, _MEANING, _GREY) == _WHITE_IS_ZERO and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    more = bool(following) and not _one(_directory(data, following)[0], _KIND, 0) & 1  # 1: the same, smaller
    return Bands(values, _names(tags, bands), nothing, _one(tags, _ORIENTATION, 1), more)


def samples_of(tags: Mapping[int, Any]) -> Samples:
    """Return the meaning of a pixel from tags: ours, or those of an image opened by Pillow."""
    values = {number: one if isinstance(one, tuple) else (one,) for number, one in dict(tags).items()}
    meaning, packing = _one(values, _MEANING, _WHITE_IS_ZERO), _one(values, _PACKING, _PLAIN)
    colours = _COLOURS.get(meaning, 1)
    ycbcr = meaning == _YCBCR
    return Samples(
        bands=_one(values, _SAMPLES, colours),
        colours=colours,
        clear=_one(values, _EXTRA, 0) in _TRANSPARENCY,
        ycbcr=ycbcr,
        coarse=ycbcr and packing == _PLAIN and tuple(values.get(_SUBSAMPLING, (2, 2))) != (1, 1),
        white_is_zero=meaning == _WHITE_IS_ZERO,
        orientation=_one(values, _ORIENTATION, 1),
    )


def samples(data: bytes) -> Samples:
    """Return the meaning of a pixel from the tags of the first image.

    Raises:
        TiffError: broken.
    """
    return samples_of(_directory(data, None)[0])


def spacing(data: bytes) -> tuple[float, float] | None:
    """Return the pixel size (mm down, mm across), if the resolution is in centimetres and not one of a screen.

    Raises:
        TiffError: broken.
    """
    tags, _ = _directory(data, None)
    both = [tags.get(tag, ()) for tag in (_DOWN, _ACROSS)]
    if _one(tags, _UNIT, 0) != _CENTIMETRE or not all(len(one) == 2 and min(one) > 0 for one in both):
        return None
    a_centimetre = [one[0] / one[1] for one in both]
    if any(abs(one * 2.54 - dots) < 0.05 for one in a_centimetre for dots in _SCREENS):
        return None
    down, across = (10 / one for one in a_centimetre)
    return (across, down) if _one(tags, _ORIENTATION, 1) >= 5 else (down, across)


def page(data: bytes, number: int) -> bytes | None:
    """Return a file with only one of several images, if Pillow would not keep all of it; otherwise None.

    Raises:
        TiffError: broken.
    """
    if not is_tiff(data):
        return None
    at = None
    tags, following = _directory(data, at)
    for _ in range(number):
        at = following
        tags, following = _directory(data, at)
    found = samples_of(tags)
    deep = found.colours > 1 and _one(tags, _BITS, 8) > 8
    if not (found.left_out or deep or found.orientation != 1):
        return None
    alone, (order, big) = bytearray(data), _form(data)
    if at is not None:
        struct.pack_into(order + ("Q" if big else "I"), alone, 8 if big else 4, at)
    else:
        at = _first(data)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    end = at + (8 + 20 * count if big else 2 + 12 * count)
    struct.pack_into(order + ("Q" if big else "I"), alone, end, 0)
    return bytes(alone)


def _directory(data: bytes, at: int | None) -> tuple[Tags, int]:
    """Return the tags of an image (None: the first), and the position of the next image's tags (0: none)."""
    order, big = _form(data)
    try:
        at = _first(data) if at is None else at
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        if count > _MOST_TAGS:
            raise TiffError("its directory is damaged")
        at, step = at + (8 if big else 2), 20 if big else 12
        tags = dict(_tag(data, order, big, at + i * step) for i in range(count))
        return tags, struct.unpack_from(order + ("Q" if big else "I"), data, at + count * step)[0]
    except struct.error as error:
        raise TiffError("its end is missing") from error


def _form(data: bytes) -> tuple[str, bool]:
    """Return the byte order of a file, and whether it is BigTIFF."""
    return "<" if data[:2] == b"II" else ">", 43 in data[2:4]


def _first(data: bytes) -> int:
    """Return the position of the first image's tags."""
    order, big = _form(data)
    return int(struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0])


def _tag(data: bytes, order: str, big: bool, at: int) -> tuple[int, tuple[Any, ...]]:
    number, kind = struct.unpack_from(order + "HH", data, at)
    (count,) = struct.unpack_from(order + ("Q" if big else "I"), data, at + 4)
    if kind == _RATIONAL:
        kind, count = 4, 2 * count
    code = "s" if kind in _TEXT else _TYPES.get(kind)
    if code is None:
        return number, ()
    layout = f"{order}{count}{code}"
    length = struct.calcsize(layout) if count <= len(data) else len(data) + 1
    place = at + (12 if big else 8)
    if length > (8 if big else 4):
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
    if place + length > len(data):
        raise TiffError("its end is missing")
    return number, struct.unpack_from(layout, data, place)


def _one(tags: Tags, tag: int, otherwise: int) -> int:
    found = tags.get(tag) or (otherwise,)
    return int(found[0])


def _shape(tags: Tags) -> tuple[int, int, int]:
    height, width, bands = _one(tags, _HEIGHT, 0), _one(tags, _WIDTH, 0), _one(tags, _SAMPLES, 1)
    if min(height, width, bands) < 1:
        raise TiffError("it has no size")
    return height, width, bands


def _is_read(tags: Tags) -> bool:
    packing = _one(tags, _PACKING, _PLAIN)
    bits = set(tags.get(_BITS, (1,)))
    return (
        (packing == _PLAIN or packing in _DEFLATE or packing in _PACKED)
        and _one(tags, _MEANING, _GREY) in {_WHITE_IS_ZERO, _GREY, _COLOUR}
        and len(bits) == 1
        and len(set(tags.get(_FORMAT, (1,)))) == 1
        and (_one(tags, _FORMAT, 1), bits.pop())
        in {*((kind, size) for kind in (1, 2, 4) for size in (8, 16, 32, 64)), (3, 16), (3, 32), (3, 64)}
    )


def _dtype(data: bytes, tags: Tags) -> np.dtype[Any]:
    kind = {2: "i", 3: "f"}.get(_one(tags, _FORMAT, 1), "u")
    return np.dtype(f"{'<' if data[:2] == b'II' else '>'}{kind}{_one(tags, _BITS, 8) // 8}")


def _piece_size(tags: Tags) -> tuple[int, int]:
    """Return the (rows, columns) of a strip or a tile."""
    height, width, _ = _shape(tags)
    if _TILES in tags:
        return _one(tags, _TILE_HEIGHT, 0), _one(tags, _TILE_WIDTH, 0)
    return min(height, _one(tags, _STRIP_ROWS, height)), width


def _pieces(tags: Tags) -> list[_Piece]:
    height, width, bands = _shape(tags)
    rows, cols = _piece_size(tags)
    if min(rows, cols) < 1:
        raise TiffError("its directory is damaged")
    starts = tags.get(_TILES) or tags.get(_STRIPS) or ()
    sizes = tags.get(_TILE_BYTES) or tags.get(_STRIP_BYTES) or ()
    planes = bands if _one(tags, _PLANAR, 1) == 2 else 1
    down, across = -(-height // rows), -(-width // cols)
    if not len(starts) == len(sizes) == planes * down * across:
        raise TiffError("its directory is damaged")
    return [
        _Piece(start, size, i // across % down * rows, i % across * cols, i // (down * across))
        for i, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def _unpacked(data: bytes, piece: _Piece, tags: Tags) -> NDArray[Any]:
    """Return the values of a piece: (rows, columns, bands), with one band if each band has its own plane."""
    rows, cols = _piece_size(tags)
    if _TILES not in tags:
        rows = min(rows, _shape(tags)[0] - piece.top)
    bands = 1 if _one(tags, _PLANAR, 1) == 2 else _shape(tags)[2]
    dtype = _dtype(data, tags)
    shape, wide = (rows, cols, bands), cols * bands * dtype.itemsize
    packed = data[piece.start : piece.start + piece.size]
    plain = _bytes(packed, _one(tags, _PACKING, _PLAIN), rows, wide)
    if len(packed) < piece.size or len(plain) < rows * wide:
        raise TiffError("its end is missing")
    values = np.frombuffer(plain, np.uint8, rows * wide)
    predictor = _one(tags, _PREDICTOR, 1)
    if predictor == 3:
        return _floats(values, shape, dtype)
    whole = values.view(dtype).reshape(shape)
    return np.cumsum(whole, 1, dtype=dtype) if predictor == 2 else whole


def _bytes(packed: bytes, packing: int, rows: int, wide: int) -> bytes:
    if packing == _PLAIN:
        return packed
    if packing in _DEFLATE:
        try:
            return zlib.decompressobj().decompress(packed, rows * wide)
        except zlib.error as error:
            raise TiffError("a piece of it cannot be unpacked") from error
    fields = [
        (_WIDTH, wide), (_HEIGHT, rows), (_BITS, 8), (_PACKING, packing), (_MEANING, _GREY), (_STRIPS, 8),
        (_SAMPLES, 1), (_STRIP_ROWS, rows), (_STRIP_BYTES, len(packed)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    tail = struct.pack("<H", len(fields)) + entries + struct.pack("<I", 0)
    file = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + tail
    try:
        with Image.open(BytesIO(file), formats=["TIFF"]) as image:
            return image.tobytes()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise TiffError("a piece of it cannot be unpacked") from error


def _floats(values: NDArray[np.uint8], shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo the predictor of floating numbers: differences of bytes, the high bytes of a row before its low ones."""
    rows, cols, bands = shape
    summed = np.cumsum(values.reshape(rows, -1, bands), 1, dtype=np.uint8)
    apart = summed.reshape(rows, dtype.itemsize, cols * bands)
    high_first = np.ascontiguousarray(apart.swapaxes(1, 2))
    return high_first.view(dtype.newbyteorder(">")).reshape(shape)


def _text(tags: Tags, tag: int) -> str:
    found = tags.get(tag, ())
    return (
        found[0].rstrip(b"\0").decode("utf-8", "replace").strip()
        if found and isinstance(found[0], bytes)
        else ""
    )


def _names(tags: Tags, bands: int) -> tuple[str, ...]:
    """Return the band names written by GDAL; empty if a band has no name."""
    items = re.findall(r"<Item\b([^>]*)>([^<]*)</Item>", _text(tags, _METADATA))
    names: dict[int, str] = {}
    for attributes, name in items:
        which = re.search(r'\bsample="(\d+)"', attributes)
        if which and 'role="description"' in attributes:
            names[int(which[1])] = unescape(name).strip()
    found = tuple(names.get(i, "") for i in range(bands))
    return found if all(found) else ()


def _no_data(tags: Tags) -> float | None:
    try:
        return float(_text(tags, _NO_DATA))
    except ValueError:
        return None
