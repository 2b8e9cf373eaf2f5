"""Files of masks: their numbers as they stand, and what the masks of a set say of its classes."""

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
from vitrail.data.names import count, some
from vitrail.data.truth import Truth

VOID = 255
"""The value of a mask that counts nowhere, where nobody says another."""

MOST = 255
"""Classes of a mask at most: one byte holds them and void."""

_INDEXED = ("1", "L", "P", "I", "I;16", "I;16B", "F")


class RawMask(NamedTuple):
    """A mask as its file holds it: numbers (height, width), or colours (height, width, 3); and the file's palette."""

    array: NDArray[Any]
    palette: tuple[tuple[int, int, int], ...] = ()

    @property
    def coloured(self) -> bool:
        """Whether it holds colours in place of numbers."""
        return self.array.ndim == 3


def read_raw(data: bytes, name: str) -> RawMask:
    """Read a mask file: palettes keep their numbers, a mask is turned by its own EXIF tag.

    Raises:
        DataError: no image, a lossy one, or numbers that are no whole ones.
    """
    if data[:6] == b"\x93NUMPY":
        return RawMask(_whole(np.load(BytesIO(data), allow_pickle=False), name))
    try:
        with Image.open(BytesIO(data)) as image:
            if image.format in ("JPEG", "MPO"):
                raise DataError(
                    f"{name} is a mask in JPEG, which blurs class numbers. Save masks as PNG, from their source."
                )
            upright = ImageOps.exif_transpose(image)
            palette = _palette(upright)
            if upright.mode in _INDEXED:
                values = upright.convert("L") if upright.mode == "1" else upright
                return RawMask(_whole(np.asarray(values), name), palette)
            return RawMask(np.asarray(upright.convert("RGB")))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise DataError(f"{name} is no mask that can be read ({error}). Save it as PNG.") from error


def decode_mask(raw: RawMask, truth: Truth, name: str) -> NDArray[np.uint8]:
    """Return the class of each pixel, `VOID` where none counts: uint8 (height, width).

    Raises:
        DataError: a number or a colour that is none of the header's.
    """
    if raw.coloured:
        return _by_colour(raw.array, truth, name)
    values = truth.values or tuple(range(len(truth.names)))
    void = {*values[len(truth.names) :], *([] if truth.void is None else [truth.void])}
    void |= {VOID} - {*values[: len(truth.names)]} if truth.void is None else set()
    known = {value: i for i, value in enumerate(values[: len(truth.names)])} | dict.fromkeys(void, VOID)
    return _looked_up(raw.array.astype(np.int64), known, name, str)


def survey(masks: Iterable[Callable[[], RawMask]], named: tuple[str, ...] = ()) -> tuple[Truth, list[str]]:
    """Return the header that masks of numbers tell, and lines on what was taken for what; `named` are names of a table.

    Masks of 0 and 255 alone are two classes. One value right behind the named ones, or 255, is void.

    Raises:
        DataError: the masks hold colours, or more values than a table names.
    """
    with ThreadPoolExecutor() as pool:
        tables = list(pool.map(_tally, masks))
    palette = next((colours for _, colours in tables if colours), ())
    seen = sum((tally for tally, _ in tables), Counter())
    values = sorted(seen)
    if values and set(values) <= {0, VOID} and VOID in values and len(named) in (0, 2):
        names = named or ("background", "foreground")
        line = f"The masks hold 0 and 255 alone: two classes, {names[0]} and {names[1]}."
        return Truth("mask", names, (), None, values=(0, VOID)), [line]
    last = max((value for value in values if value != VOID), default=0)
    names = named or tuple(f"class {value}" for value in range(last + 1))
    lines, void = [], None
    if named and last == len(named):
        void, share = last, seen[last] / max(1, sum(seen.values()))
        lines = [
            f"The value {last} has no name in the table: it is taken for void ({share:.1%} of the pixels)."
        ]
    elif last >= len(names):
        beyond = some(str(value) for value in values if len(names) <= value != VOID)
        raise DataError(
            f"holds masks with the values {beyond}, and {count(len(names), 'name')}. Name every class."
        )
    colours = palette[: len(names)] if len(palette) >= len(names) else ()
    return Truth("mask", names, colours, void), lines


def _tally(make: Callable[[], RawMask]) -> tuple[Counter[int], tuple[tuple[int, int, int], ...]]:
    try:
        raw = make()
    except DataError:  # the check of its row says what is wrong with it
        return Counter(), ()
    if raw.coloured:
        raise DataError(
            "holds masks in colours, and no table says what they mean: add classes.txt (name r g b)."
        )
    values, counts = np.unique(raw.array, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True))), raw.palette


def _by_colour(array: NDArray[Any], truth: Truth, name: str) -> NDArray[np.uint8]:
    if not truth.colours:
        raise DataError(
            f"{name} is a mask in colours, and no table says what they mean. Add one: classes.txt."
        )
    codes = array.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    known = {
        (r << 16) | (g << 8) | b: i if i < len(truth.names) else VOID
        for i, (r, g, b) in enumerate(truth.colours)
    }
    return _looked_up(codes, known, name, lambda code: f"#{code:06x}")


def _looked_up(
    array: NDArray[np.int64], known: Mapping[int, int], name: str, word: Callable[[int], str]
) -> NDArray[np.uint8]:
    """Return what each number stands for; DataError names those that stand for nothing, and how often they occur."""
    values, places, counts = np.unique(array, return_inverse=True, return_counts=True)
    strange = [
        (value, times)
        for value, times in zip(values.tolist(), counts.tolist(), strict=True)
        if value not in known
    ]
    if strange:
        shown = some(f"{word(value)} ({times:,} px)" for value, times in strange)
        raise DataError(
            f"{name} holds {shown}, which stand for no class. Add them to the table, or mend the mask."
        )
    table = np.array([known[value] for value in values.tolist()], np.uint8)
    return table[places].reshape(array.shape)


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
    """Return the mask (height, width) that objects make, the later ones on top: outlines, or COCO's run lengths.

    A pixel belongs to an outline that holds its centre. An object without a class is void; what none covers is the
    first class.
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
            there |= _from_runs(one["rle"])
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


def _from_runs(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Read COCO's run lengths, column by column, as numbers or as their short text."""
    height, width = rle["size"]
    counts = rle["counts"]
    runs = (
        _short(counts.encode() if isinstance(counts, str) else counts)
        if isinstance(counts, str | bytes)
        else counts
    )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _short(text: bytes) -> list[int]:
    """Read COCO's text of run lengths: five bits a sign, each from the third on the change from two before."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            sign = text[place] - 48
            value |= (sign & 0x1F) << shift
            more, shift, place = bool(sign & 0x20), shift + 5, place + 1
        if sign & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
