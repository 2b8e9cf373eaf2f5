"""Read mask files: their values without conversion, and the values and colours in the masks of a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vitrail.core.errors import DataError
from vitrail.data.instances import run_lengths
from vitrail.data.labels import shorten
from vitrail.data.truth import Truth

VOID = 255
"""The default mask value that does not count."""

MOST = 255
"""Largest number of classes in a mask: one byte for classes and void."""

SHARPEN = "Save masks without smoothing; black and white ones with: mogrify -threshold 50% masks/*.png (ImageMagick)."
"""The remedy for masks with smoothed edges."""

_COUNTED = 1000
"""Colours after which no more are counted: so many are no classes."""

Colour = tuple[int, int, int]

_ORIENTATION = 0x0112
_INDEXED = ("1", "L", "P", "I", "I;16", "I;16B", "F")


class LossyMaskError(DataError):
    """A mask in a lossy format, which changes its values."""


class StrangeValueError(DataError):
    """A mask with values or colours of no class: `pixels` of each."""

    def __init__(self, name: str, pixels: Mapping[str, int]) -> None:
        shown = shorten(f"{value} ({count:,} px)" for value, count in pixels.items())
        super().__init__(
            f"{name} holds {shown}, which {'stands' if len(pixels) == 1 else 'stand'} for no class. "
            "Add a name to the table of classes, or mend the mask."
        )
        self.name, self.pixels = name, dict(pixels)


class RawMask(NamedTuple):
    """The content of a mask file: values (height, width), or colours (height, width, 3); and its palette."""

    array: NDArray[Any]
    palette: tuple[Colour, ...] = ()

    @property
    def coloured(self) -> bool:
        """Whether it contains colours instead of values."""
        return self.array.ndim == 3


def read_raw(data: bytes, name: str) -> RawMask:
    """Read a mask file: palettes keep their indices, and a mask is rotated by its own EXIF tag.

    Raises:
        DataError: the file is not an image, is lossy, or contains values that are not integers.
    """
    if data[:6] == b"\x93NUMPY":
        return RawMask(_whole(np.load(BytesIO(data), allow_pickle=False), name))
    try:
        with Image.open(BytesIO(data)) as image:
            if image.format in ("JPEG", "MPO"):
                raise LossyMaskError(
                    f"{name} is a mask in JPEG, which blurs class numbers. Save masks as PNG, from their source."
                )
            upright = ImageOps.exif_transpose(image)
            palette = _palette(upright)
            if upright.mode in _INDEXED:
                values = upright.convert("L") if upright.mode == "1" else upright
                return RawMask(_whole(np.asarray(values), name), palette)
            return RawMask(np.asarray(upright.convert("RGB")))
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is no mask that can be read (no image of a known kind). Save it as PNG."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} is no mask that can be read ({error}). Save it as PNG.") from error


def orientation(data: bytes) -> int:
    """Return the EXIF orientation of an image file, 1 where it has none."""
    if data.startswith(b"\x89PNG") and b"eXIf" not in data:
        return 1  # Pillow would decode all of it to look
    try:
        with Image.open(BytesIO(data)) as image:
            return int(image.getexif().get(_ORIENTATION, 1) or 1)
    except (OSError, SyntaxError, ValueError, TypeError):
        return 1


def decode_mask(raw: RawMask, truth: Truth, name: str) -> NDArray[np.uint8]:
    """Return the class of each pixel, or `VOID`: uint8 (height, width).

    Raises:
        DataError: the mask contains a value or colour that is not in the header.
    """
    array = raw.array
    if raw.coloured and truth.colours:
        return _by_colour(array, truth, name)
    if raw.coloured:
        if not (np.ptp(array, axis=2) == 0).all():
            raise DataError(
                f"{name} is a mask in colours, and no table says what they mean. Add one: classes.txt."
            )
        array = np.ascontiguousarray(array[..., 0])
    values = truth.values or tuple(range(len(truth.names)))
    void = {*values[len(truth.names) :], *([] if truth.void is None else [truth.void])}
    void |= {VOID} - {*values[: len(truth.names)]} if truth.void is None else set()
    known = {value: i for i, value in enumerate(values[: len(truth.names)])} | dict.fromkeys(void, VOID)
    return _looked_up(array, known, name, str)


class Seen(NamedTuple):
    """The content of the masks of a set: pixels of each value, or of each colour, and a palette.

    `ends` are the largest number of each mask whose numbers count from 1 without a gap, 0 of an empty mask and -1 of
    any other.
    """

    values: Counter[int]
    colours: Counter[Colour]
    palette: tuple[Colour, ...] = ()
    ends: tuple[int, ...] = ()


def survey(masks: Iterable[Callable[[], RawMask]]) -> Seen:
    """Read masks and return their values and colours; the check of a row reports masks that cannot be read.

    Grey masks that are stored as colours contain values.
    """
    values: Counter[int] = Counter()
    codes: Counter[int] = Counter()
    palette: tuple[Colour, ...] = ()
    ends: list[int] = []
    with ThreadPoolExecutor() as pool:
        for own, coloured, colours in pool.map(_tally, masks):
            (codes if coloured and len(codes) < _COUNTED else values if not coloured else Counter()).update(
                own
            )
            palette = palette or colours
            ends.append(-1 if coloured else _end(own))
    found = Counter({(code >> 16, code >> 8 & 255, code & 255): pixels for code, pixels in codes.items()})
    if all(red == green == blue for red, green, blue in found):
        values.update({red: pixels for (red, _, _), pixels in found.items()})
        found = Counter()
    return Seen(values, found, palette, tuple(ends))


def _end(values: Mapping[int, int]) -> int:
    """Return the largest number of a mask whose numbers count from 1 without a gap, else -1; 0 for an empty mask."""
    most, least = max(values, default=0), min(values, default=0)
    return most if least >= 0 and len(values.keys() - {0}) == most else -1


def _tally(make: Callable[[], RawMask]) -> tuple[Counter[int], bool, tuple[Colour, ...]]:
    try:
        raw = make()
    except DataError:
        return Counter(), False, ()
    return (
        Counter(dict(_counted(codes_of(raw.array) if raw.coloured else raw.array))),
        raw.coloured,
        raw.palette,
    )


def _counted(array: NDArray[Any]) -> list[tuple[int, int]]:
    if array.dtype == np.uint8:
        tally = np.bincount(array.ravel(), minlength=256)
        return [(value, int(tally[value])) for value in np.flatnonzero(tally).tolist()]
    values, counts = np.unique(array, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def codes_of(array: NDArray[Any]) -> NDArray[np.int32]:
    """Return colours (…, 3) as one number each: red, green and blue in eight bits."""
    codes: NDArray[np.int32] = array.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    return codes


def hexed(colour: Colour) -> str:
    """Return a colour as text: #804080."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _by_colour(array: NDArray[Any], truth: Truth, name: str) -> NDArray[np.uint8]:
    codes = codes_of(array)
    known = {
        (r << 16) | (g << 8) | b: i if i < len(truth.names) else VOID
        for i, (r, g, b) in enumerate(truth.colours)
    }
    return _looked_up(codes, known, name, lambda code: f"#{code:06x}")


def _looked_up(
    array: NDArray[Any], known: Mapping[int, int], name: str, word: Callable[[int], str]
) -> NDArray[np.uint8]:
    """Return the class of each value; raise an error with the values of no class and their frequency."""
    counted = _counted(array)
    strange = {word(value): pixels for value, pixels in counted if value not in known}
    if strange:
        raise StrangeValueError(name, strange)
    if array.dtype == np.uint8:
        table = np.full(256, VOID, np.uint8)
        table[[value for value, _ in counted]] = [known[value] for value, _ in counted]
        found: NDArray[np.uint8] = table[array]
        return found
    values = np.array([value for value, _ in counted])
    places = np.array([known[value] for value, _ in counted], np.uint8)
    sorted_in: NDArray[np.uint8] = places[np.searchsorted(values, array)]
    return sorted_in


def _whole(array: NDArray[Any], name: str) -> NDArray[Any]:
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.dtype.kind == "f":
        whole = flat.astype(np.int64)
        if not np.array_equal(whole, flat):
            raise DataError(
                f"{name} holds numbers that are no whole ones, so it is no mask. Write class numbers."
            )
        return whole
    return flat.astype(np.uint8) * np.uint8(255) if flat.dtype == np.bool_ else flat


def _palette(image: Image.Image) -> tuple[tuple[int, int, int], ...]:
    flat = image.getpalette() if image.mode == "P" else None
    triples = zip(*[iter(flat or [])] * 3, strict=False)
    return tuple((int(r), int(g), int(b)) for r, g, b in triples)


def paint(
    objects: Sequence[Mapping[str, Any]], size: tuple[int, int], places: Mapping[str, int], name: str
) -> NDArray[np.uint8]:
    """Return the mask (height, width) of painted objects, later ones on top: outlines, or COCO's run lengths.

    A pixel belongs to an outline that contains its centre. An object without a class is void; pixels outside all
    objects are the first class.
    """
    mask = np.zeros(size, np.uint8)
    for one in objects:
        kind = one.get("class")
        if kind is not None and kind not in places:
            raise DataError(
                f"{name} holds an object of the class {kind!r}, which is none of this set. Name it there."
            )
        there = np.zeros(size, bool)
        for outline in one.get("polygons", ()):
            there |= _inside(np.asarray(outline, np.float64).reshape(-1, 2), size)
        if "rle" in one:
            there |= _from_runs(one["rle"], size, name)
        mask[there] = VOID if kind is None else places[kind]
    return mask


def _inside(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixel centres lie inside an outline (n, 2) of (x, y)."""
    there = np.zeros(size, bool)
    ends = np.roll(points, -1, axis=0)
    first, last = np.floor(points[:, 1].min()), np.ceil(points[:, 1].max())
    for row in range(max(0, int(first)), min(size[0], int(last) + 1)):
        y = row + 0.5
        crossed = (points[:, 1] <= y) != (ends[:, 1] <= y)
        start, end = points[crossed], ends[crossed]
        at = np.sort(start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0]))
        for left, right in zip(at[::2], at[1::2], strict=True):
            there[row, max(0, int(np.ceil(left - 0.5))) : max(0, int(np.ceil(right - 0.5)))] = True
    return there


def _from_runs(rle: Mapping[str, Any], size: tuple[int, int], name: str) -> NDArray[np.bool_]:
    """Read COCO's run lengths, column by column, as numbers or as their short text."""
    height, width = size
    counts = rle["counts"]
    runs = (
        run_lengths(counts.encode() if isinstance(counts, str) else counts)
        if isinstance(counts, str | bytes)
        else counts
    )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    if len(flat) != height * width or tuple(rle.get("size", size)) != tuple(size):
        raise DataError(
            f"{name} holds run lengths of {len(flat):,} pixels, (height, width) {rle.get('size')}, on an image of "
            f"{width} x {height}. Write them again."
        )
    return flat.reshape(width, height).T


def to_runs(there: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask as COCO's run lengths, column by column, starting with a run outside the object."""
    flat = there.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(there.shape), "counts": [0, *runs] if flat.size and flat[0] else runs}
