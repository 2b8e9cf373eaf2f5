"""The findings of a check about boxes, of one image and of the whole set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.boxes import MEDIUM, SMALL, Boxes, box_areas, iou_table
from vitrail.data.decode import EXIF
from vitrail.data.findings import Finding, Strata, missing
from vitrail.data.labels import count, shorten
from vitrail.data.layouts.mask_files import orientation
from vitrail.data.manifest import KEPT, Row
from vitrail.data.open_image import read as read_bytes
from vitrail.tasks.detect.box_targets import StatedBox

if TYPE_CHECKING:
    from vitrail.data.image_facts import Facts

FEW_BOXES = 20
"""Classes with fewer boxes are reported: their scores mean little."""

DOUBLED = 0.95
"""Two boxes of one class with a larger IoU are the same box."""

ROUNDING = 1.0
"""Boxes that end less than this outside the image, in pixels, come from rounding and are clipped without a finding."""

MOST = 300
"""The most objects of an image that a model answers, unless more queries are asked for."""

_SAME_SHAPE = 0.02  # relative difference of two aspect ratios that come from rounding sides


def check_frame(row: Row, stated: Sequence[StatedBox], facts: Facts, root: Path) -> Iterator[Finding]:
    """Report boxes that were written for another frame: rotated by an EXIF tag, or an image of another size."""
    size, turned = facts.size, facts.size[::-1]
    swaps = EXIF in facts.notes and not row.part and orientation(read_bytes(root, row.path)) >= 5
    corners = np.array([one.corners for one in stated], np.float64).reshape(-1, 4)
    fits, fits_turned = _fits(corners, size), _fits(corners, turned)
    sizes = {one.stated_size for one in stated} - {(0, 0)}
    other = next((one for one in sizes if one != size), None) if not row.part else None
    if size != turned and not fits and fits_turned and (swaps or other == turned or len(stated) > 1):
        why = "an EXIF tag rotates the image" if swaps else "they fit the image only if it is rotated"
        yield _turned(row, f"boxes in another frame: {why}")
    elif other == turned and (swaps or not fits):
        if fits and not fits_turned:
            return  # only the stated size is that of the pixels before rotation
        yield _turned(row, "boxes for the image before rotation: an EXIF tag swaps the sides of their size")
    elif other is not None:
        text = f"boxes for an image of {other[1]} × {other[0]} px on one of {size[1]} × {size[0]}"
        alike = abs(other[0] * size[1] / (other[1] * size[0]) - 1) < _SAME_SHAPE
        hint = (
            "Use the images in the size in which they were annotated, or correct the size in the annotations."
        )
        yield Finding("box size", text, (row.id,), grave=True, out=alike or not fits, hint=hint)


def _turned(row: Row, text: str) -> Finding:
    hint = "Remove the tag and rotate the pixels, or annotate the image as it is shown."
    return Finding("box turn", text, (row.id,), grave=True, out=True, hint=hint)


def _fits(corners: NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Return whether all boxes (n, 4) lie inside an image of (height, width)."""
    far = np.array([*size[::-1], *size[::-1]]) + ROUNDING
    return bool((corners >= -ROUNDING).all() and (corners <= far).all())


def check_boxes(
    row: Row, stated: Sequence[StatedBox], boxes: Boxes, size: tuple[int, int]
) -> Iterator[Finding]:
    """Report boxes of no size, boxes that end outside or lie outside the image, and doubled boxes."""
    flat = sum(not one.has_area for one in stated)
    if flat:
        text = f"{count(flat, 'box', 'boxes')} of no size, left out"
        yield Finding("flat box", text, (row.id,), grave=True, hint="Draw them again, or delete them.")
    far = np.array(size[::-1], np.float64)
    over = np.maximum(-boxes.xyxy[:, :2], boxes.xyxy[:, 2:] - far).max(1, initial=0)
    inside = box_areas(np.clip(boxes.xyxy, 0, [*far, *far])) > 0
    if cut := int(((over > ROUNDING) & inside).sum()):
        text = f"{count(cut, 'box', 'boxes')} beyond the border, clipped there"
        yield Finding("box outside", text, (row.id,))
    if gone := int((~inside).sum()):
        text = f"{count(gone, 'box', 'boxes')} outside the image, left out"
        yield Finding("box lost", text, (row.id,), grave=True, hint="Correct the corners, or delete them.")
    if twice := _doubled(boxes):
        text = f"{count(twice, 'box', 'boxes')} there twice"
        hint = "Delete one of each two: scores count both, and one is always missed."
        yield Finding("doubled box", text, (row.id,), grave=True, hint=hint)


def _doubled(boxes: Boxes) -> int:
    """Return the number of boxes that repeat an earlier box of their class."""
    overlaps = np.triu(iou_table(boxes.xyxy, boxes.xyxy) > DOUBLED, 1)
    return int((overlaps & (boxes.kinds[:, None] == boxes.kinds[None])).any(0).sum())


def check_set(
    rows: Sequence[Row], noted: Mapping[tuple[str, str], Any], names: Sequence[str], strata: Strata
) -> Iterator[Finding]:
    """Report classes without boxes or with few, missing classes of splits, sizes, and images of background.

    `noted` contains the boxes of every checked image, by the id and the target of its row.
    """
    images = [
        noted[row.id, row.target] for row in rows if row.state == KEPT and (row.id, row.target) in noted
    ]
    if not images:
        return
    table = [_class_row(name, kind, images) for kind, name in enumerate(names)]
    present = [line["class"] for line in table if line["boxes"]]
    absent = [name for name in names if name not in present]
    if absent:
        text = (
            f"No box of {shorten(absent, 8)}, so it cannot be learned. Add images of it, or remove the class."
        )
        yield Finding("boxless class", text, grave=True)
    yield from missing(rows, present, strata)
    few = [f"{line['class']} ({line['boxes']})" for line in table if 0 < line["boxes"] < FEW_BOXES]
    if few:
        text = f"Fewer than {FEW_BOXES} boxes of {shorten(few)}. Add more: scores there mean little."
        yield Finding("few boxes", text)
    shown = sorted((line for line in table if line["boxes"]), key=lambda line: -line["boxes"])
    text = f"Boxes: {shorten(map(_class_words, shown), 8)}."
    dropped = set() if any(line["not counted"] for line in shown) else {"not counted"}
    columns = tuple({key: value for key, value in line.items() if key not in dropped} for line in shown)
    yield Finding("box classes", text, table=columns)
    yield _sizes(images)
    found = {key: len(boxes.kinds) for key, boxes in noted.items()}
    yield from background(rows, found, "box")
    yield objects(images)
    yield from many(rows, {key: int((~boxes.crowd).sum()) for key, boxes in noted.items()})


def _class_row(name: str, kind: int, images: Sequence[Boxes]) -> dict[str, Any]:
    own = [one.kinds == kind for one in images]
    left = int(sum((mine & one.crowd).sum() for mine, one in zip(own, images, strict=True)))
    boxes = int(sum(mine.sum() for mine in own)) - left
    return {
        "class": name,
        "boxes": boxes,
        "images": sum(bool(mine.any()) for mine in own),
        "not counted": left,
    }


def _class_words(line: Mapping[str, Any]) -> str:
    words = f"{line['boxes']:,} {line['class']} in {count(line['images'], 'image')}"
    left = line["not counted"]
    return f"{words} (and {left:,} crowd or difficult, which do not count)" if left else words


def _sizes(images: Sequence[Boxes]) -> Finding:
    areas = np.concatenate([box_areas(one.xyxy) for one in images])
    sides = np.sqrt(areas)
    small, medium = int((areas < SMALL**2).sum()), int(((areas >= SMALL**2) & (areas <= MEDIUM**2)).sum())
    parts = {"small": small, "medium": medium, "large": len(areas) - small - medium}
    table = tuple(
        {"size": name, "boxes": number, "share": round(number / max(1, len(areas)), 4)}
        for name, number in parts.items()
    )
    middle = f", the median box has a side of {np.median(sides):.0f} px" if len(sides) else ""
    text = (
        f"Sizes: {small:,} small boxes (below {SMALL} × {SMALL} px), {medium:,} medium, {parts['large']:,} large "
        f"(above {MEDIUM} × {MEDIUM}){middle}."
    )
    return Finding("box sizes", text, table=table)


def objects(images: Sequence[Boxes]) -> Finding:
    """Return the number of objects in an image."""
    numbers = np.array([len(one.kinds) for one in images])
    text = f"Objects in an image: {np.median(numbers):.0f} in the median, {numbers.max()} at most."
    return Finding("objects", text)


def background(rows: Sequence[Row], numbers: Mapping[tuple[str, str], int], noun: str) -> Iterator[Finding]:
    """Report the images without objects; `numbers` are those of the objects, by the id and the target of a row."""
    empty = [row.id for row in rows if row.state == KEPT and numbers.get((row.id, row.target)) == 0]
    if empty:
        text = f"{count(len(empty), 'image')} without any {noun}, learned as background: {shorten(empty)}."
        yield Finding("background", text, tuple(empty))


def many(rows: Sequence[Row], numbers: Mapping[tuple[str, str], int]) -> Iterator[Finding]:
    """Report images with more objects than a model answers; `numbers` are as for `background`, without crowds."""
    own = {row.id: numbers.get((row.id, row.target), 0) for row in rows if row.state == KEPT}
    over = {name: number for name, number in own.items() if number > MOST}
    if over:
        shown = shorten(f"{name} ({number:,})" for name, number in over.items())
        text = (
            f"{count(len(over), 'image')} with more than {MOST} objects, the most that a model answers of an image: "
            f"{shown}. Cut the images into parts, or ask for more: --set queries={max(over.values())}"
        )
        yield Finding("many objects", text, tuple(over), grave=True)
