"""The findings of a check about masks of objects, of one image and of the whole set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.boxes import MEDIUM, SMALL, Boxes, clip_to
from vitrail.data.decode import EXIF
from vitrail.data.findings import Finding, Strata, missing
from vitrail.data.instances import Instances, Runs, boxes_around, mask_areas, mask_overlaps
from vitrail.data.labels import count, shorten
from vitrail.data.layouts.mask_files import orientation
from vitrail.data.manifest import KEPT, Row
from vitrail.data.open_image import read as read_bytes
from vitrail.data.parts import is_window
from vitrail.tasks.detect import box_findings
from vitrail.tasks.instances.stated_objects import StatedObject

if TYPE_CHECKING:
    from vitrail.data.image_facts import Facts

FEW_OBJECTS = 20
"""Classes with fewer objects are reported: their scores mean little."""

DOUBLED = 0.95
"""Two masks of one class with a larger IoU are the same object."""

INSIDE = 0.5
"""Two masks share many pixels if more than this share of the smaller one is in the other."""

APART = 4.0, 0.01
"""A box disagrees with its mask where a side is further apart, in pixels and in sides of the image: the larger one."""


_NOT_LEARNED = "neither learned nor counted as wrong or missed"

_HALF = (2, 3, 4)  # EXIF orientations that keep the sides of an image


class Measured(NamedTuple):
    """What a check keeps of an image: its boxes, the pixels of each mask (n,), and objects without a mask by class."""

    boxes: Boxes
    areas: NDArray[np.float64]
    bare: Mapping[str, int]


def measured(stated: Sequence[StatedObject], found: Instances, size: tuple[int, int]) -> Measured:
    """Return what is kept of the objects of an image (height, width): those inside it, clipped at its border."""
    some = [one for one in stated if not one.box.ignored] if found.boxes.crowd.any() else []
    bare = Counter(one.box.name for one in some if not mask_areas([one.mask(size) or Runs(size, b"")])[0])
    boxes = clip_to(found.boxes._replace(kinds=np.arange(len(found.masks))), size)
    areas = mask_areas([found.masks[place] for place in boxes.kinds])
    return Measured(boxes._replace(kinds=found.boxes.kinds[boxes.kinds]), areas, bare)


def check_frame(row: Row, stated: Sequence[StatedObject], facts: Facts, root: Path) -> Iterator[Finding]:
    """Report outlines that were drawn for another frame: rotated by an EXIF tag, or an image of another size."""
    found = list(box_findings.check_frame(row, [one.box for one in stated], facts, root))
    if row.part or any(finding.out for finding in found):
        yield from found
        return
    sizes = {one.size for one in stated} - {(0, 0), facts.size}
    if sizes:
        height, width = min(sizes)
        text = f"masks for an image of {width} × {height} px on one of {facts.size[1]} × {facts.size[0]}"
        hint = "Use the images in the size in which they were annotated, or write the masks again."
        yield Finding("mask size", text, (row.id,), grave=True, out=True, hint=hint)
    elif stated and EXIF in facts.notes:
        turn = orientation(read_bytes(root, row.path))
        if turn in _HALF or facts.size[0] == facts.size[1]:
            text = "an EXIF tag that rotates the image, and its size does not show whether the masks fit"
            hint = "Look at them: vitrail check DATA --html page.html"
            yield Finding("mask turn kept", text, (row.id,), grave=True, hint=hint)


def check_masks(
    row: Row, stated: Sequence[StatedObject], found: Instances, size: tuple[int, int]
) -> Iterator[Finding]:
    """Report objects without a mask, masks beyond the image or apart from their boxes, and those that share pixels."""
    if not is_window(row.part):
        yield from _outlines(row, stated, size)
    own = [(mask, kind) for mask, kind, crowd in zip(found.masks, *found.boxes[1:], strict=True) if not crowd]
    yield from _shared(row, [mask for mask, _ in own], np.array([kind for _, kind in own], np.int64))


def _outlines(row: Row, stated: Sequence[StatedObject], size: tuple[int, int]) -> Iterator[Finding]:
    """Report what is wrong with single outlines of a whole image."""
    bare = [one for one in stated if not one.is_outlined]
    if short := sum(one.is_short and one.box.has_area and not one.box.ignored for one in bare):
        text = f"{count(short, 'polygon')} of fewer than three corners, {_NOT_LEARNED}"
        yield Finding("few corners", text, (row.id,), grave=True, hint="Draw them again, or delete them.")
    if boxed := sum(one.box.has_area and not one.box.ignored and not one.is_short for one in bare):
        text = f"{count(boxed, 'box', 'boxes')} without an outline, {_NOT_LEARNED}"
        hint = "Draw the outlines, or learn the boxes: --task detect"
        yield Finding("no outline", text, (row.id,), grave=True, hint=hint)
    if gone := len(bare) - sum(one.box.has_area for one in bare):
        text = f"{count(gone, 'object')} without an outline and with a box of no size, left out"
        yield Finding("flat box", text, (row.id,), grave=True, hint="Draw them again, or delete them.")
    outlined = [one for one in stated if one.is_outlined]
    masks = [mask for one in outlined if (mask := one.mask(size)) is not None]
    drawn = mask_areas(masks) > 0
    if empty := int((~drawn).sum()):
        text = f"{count(empty, 'mask')} without a pixel in the image, {_NOT_LEARNED}"
        yield Finding("empty mask", text, (row.id,), grave=True, hint="Draw them again, or delete them.")
    over = [_beyond(one, size) > box_findings.ROUNDING for one in outlined]
    if cut := int((np.array(over, np.bool_) & drawn).sum()):
        text = f"{count(cut, 'outline')} beyond the border, clipped there"
        yield Finding("mask outside", text, (row.id,))
    corners = np.array([one.box.corners for one in outlined], np.float64).reshape(-1, 4)
    clipped = np.clip(corners, 0, [*size[::-1], *size[::-1]])
    apart = np.abs(clipped - boxes_around(masks)).max(1, initial=0) > max(APART[0], APART[1] * max(size))
    counted = np.array([one.box.has_area and not one.box.ignored for one in outlined], np.bool_)
    if differ := int((apart & drawn & counted).sum()):
        text = f"{count(differ, 'box', 'boxes')} apart from the mask of the object"
        hint = "Boxes are learned as they are stated: correct the box or the outline, whichever is wrong."
        yield Finding("box apart", text, (row.id,), grave=True, hint=hint)


def _beyond(one: StatedObject, size: tuple[int, int]) -> float:
    """Return how far polygons end outside an image (height, width), in pixels."""
    points = np.concatenate([np.asarray(own, np.float64) for own in one.polygons] or [np.zeros(2)])
    points = points.reshape(-1, 2)
    return float(max((-points).max(), (points - size[::-1]).max()))


def _shared(row: Row, masks: Sequence[Runs], kinds: NDArray[np.int64]) -> Iterator[Finding]:
    """Report masks of one class that are there twice, and masks that lie in others."""
    nobody = np.zeros(len(masks), np.bool_)
    alike = kinds[:, None] == kinds[None]
    twice = np.triu((mask_overlaps(masks, masks, nobody) > DOUBLED) & alike, 1)
    if doubled := int(twice.any(0).sum()):
        text = f"{count(doubled, 'mask')} there twice"
        hint = "Delete one of each two: scores count both, and one is always missed."
        yield Finding("doubled mask", text, (row.id,), grave=True, hint=hint)
    inside = mask_overlaps(masks, masks, ~nobody) > INSIDE  # of the first mask's own pixels
    inside &= ~np.eye(len(masks), dtype=np.bool_) & ~twice & ~twice.T
    if lapping := int(inside.any(1).sum()):
        text = f"{count(lapping, 'mask')} with most pixels inside another mask"
        yield Finding("masks overlap", text, (row.id,))


def check_set(
    rows: Sequence[Row], noted: Mapping[tuple[str, str], Any], names: Sequence[str], strata: Strata
) -> Iterator[Finding]:
    """Report classes without objects or with few, missing classes of splits, sizes, and images of background.

    `noted` contains what was `Measured` of every checked image, by the id and the target of its row.
    """
    kept = [row for row in rows if row.state == KEPT and (row.id, row.target) in noted]
    images: list[Measured] = [noted[row.id, row.target] for row in kept]
    if not images:
        return
    table = [_class_row(name, kind, images) for kind, name in enumerate(names)]
    present = [line["class"] for line in table if line["objects"]]
    absent = [name for name in names if name not in present]
    if absent:
        text = f"No mask of {shorten(absent, 8)}, so it cannot be learned. Add images of it, or remove the class."
        yield Finding("absent class", text, grave=True)
    yield from missing(rows, present, strata)
    few = [f"{line['class']} ({line['objects']})" for line in table if 0 < line["objects"] < FEW_OBJECTS]
    if few:
        text = f"Fewer than {FEW_OBJECTS} objects of {shorten(few)}. Add more: scores there mean little."
        yield Finding("few objects", text)
    shown = sorted((line for line in table if line["objects"]), key=lambda line: -line["objects"])
    text = f"Objects: {shorten(map(_class_words, shown), 8)}."
    optional = ("without an outline", "not counted")
    dropped = {name for name in optional if not any(line[name] for line in shown)}
    columns = tuple({key: value for key, value in line.items() if key not in dropped} for line in shown)
    yield Finding("object classes", text, table=columns)
    yield _sizes(images)
    numbers = {key: len(one.areas) for key, one in noted.items()}
    yield from box_findings.background(rows, numbers, "object")
    yield box_findings.objects([one.boxes for one in images])
    yield from box_findings.many(rows, {key: int((~one.boxes.crowd).sum()) for key, one in noted.items()})


def _class_row(name: str, kind: int, images: Sequence[Measured]) -> dict[str, Any]:
    own = [one.boxes.kinds == kind for one in images]
    crowds = [int((mine & one.boxes.crowd).sum()) for mine, one in zip(own, images, strict=True)]
    bare = sum(min(one.bare.get(name, 0), crowd) for one, crowd in zip(images, crowds, strict=True))
    areas = np.concatenate(
        [one.areas[mine & ~one.boxes.crowd] for mine, one in zip(own, images, strict=True)]
    )
    return {
        "class": name,
        "objects": len(areas),
        "images": sum(bool(mine.any()) for mine in own),
        "median pixels": int(np.median(areas)) if len(areas) else 0,
        "without an outline": bare,
        "not counted": sum(crowds) - bare,
    }


def _class_words(line: Mapping[str, Any]) -> str:
    words = f"{line['objects']:,} {line['class']} in {count(line['images'], 'image')}"
    bare, left = line["without an outline"], line["not counted"]
    others = [f"{bare:,} without an outline in the image"] if bare else []
    others += [f"{left:,} crowd or difficult"] if left else []
    return f"{words} (and {', '.join(others)}, which do not count)" if others else words


def _sizes(images: Sequence[Measured]) -> Finding:
    areas = np.concatenate([one.areas for one in images])
    small, medium = int((areas < SMALL**2).sum()), int(((areas >= SMALL**2) & (areas <= MEDIUM**2)).sum())
    parts = {"small": small, "medium": medium, "large": len(areas) - small - medium}
    table = tuple(
        {"size": name, "objects": number, "share": round(number / max(1, len(areas)), 4)}
        for name, number in parts.items()
    )
    middle = f", the median mask has {np.median(areas):,.0f} px" if len(areas) else ""
    text = (
        f"Sizes: {small:,} small masks (below {SMALL**2:,} px), {medium:,} medium, {parts['large']:,} large "
        f"(above {MEDIUM**2:,} px){middle}."
    )
    return Finding("mask sizes", text, table=table)
