"""Targets of instances: reading, transforming and checking the objects of an image with their masks. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data import parts
from vitrail.data.boxes import LEAST_SIDE, Boxes, box_areas, take_boxes, view_boxes
from vitrail.data.findings import Finding
from vitrail.data.instances import Instances, Runs, boxes_around, cut_mask, from_polygons, mask_areas, to_runs
from vitrail.data.labels import count
from vitrail.data.manifest import Row
from vitrail.data.targets import read_truth
from vitrail.data.truth import Truth
from vitrail.tasks.detect.targets import ObjectTargets
from vitrail.tasks.instances import mask_findings
from vitrail.tasks.instances.cover import cover_in_view
from vitrail.tasks.instances.stated_objects import StatedObject, size_of, stated_objects

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.image_facts import Facts

ROUGH = 1.0
"""A box of a cut or rotated object follows its visible mask where that ends more than this inside it, in pixels."""

_EXACT = 1e-9


class InstanceTargets(ObjectTargets[Instances]):
    """The objects of an image with their boxes and masks, in pixels of the upright original.

    The target of a row is the list of detection, each object with "polygons": [[x, y, x, y, …], …] or "rle", the run
    lengths of COCO. An object without an outline cannot be learned; it becomes a crowd whose mask is its box, so that
    what is found there is not wrong.
    """

    kinds = ("boxes", "instances", "panoptic")
    needs = "Segmentation of instances", "objects with outlines"

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header with all classes, of panoptic segments with the things alone."""
        if truth.kind != "panoptic":
            return super().gather(truth, rows)
        if not truth.things:
            raise DataError("None of these segments is a thing. Name the things: --things car,pedestrian")
        return replace(truth, names=truth.things)

    def stated(self, row: Row) -> list[StatedObject]:
        """Return the objects of a row; the areas beside things are none."""
        every = stated_objects(row)
        if self.truth.kind != "panoptic":
            return every
        return [one for one in every if one.box.name in self.truth.names]

    def read(self, row: Row, root: Path) -> Instances:
        """Return the objects of a row, those without an outline as crowds; raise DataError if they cannot be read."""
        stated = self.stated(row)
        return self.objects(stated, size_of(stated, row, root) if stated else (0, 0), row)

    def objects(self, stated: Sequence[StatedObject], size: tuple[int, int], row: Row) -> Instances:
        """Return stated objects of an image (height, width), in the row's window if it has one."""
        boxes = self.unclipped([one.box for one in stated], row)
        drawn = [one.mask(size) for one in stated]
        return _in_part(_completed(boxes, drawn, size), row)

    def transform(self, target: Instances, view: Any) -> Instances:
        """Return the objects that a view shows: boxes in pixels of its input, and `cover` in place of the masks.

        Where a crop or a rotation hides a part of an object, its box follows what is left of its mask.
        """
        numbered = target.boxes._replace(kinds=np.arange(len(target.masks)))
        seen = view_boxes(numbered, view)
        places = seen.kinds
        cover = cover_in_view([target.masks[place] for place in places], view)
        hidden = _hidden(target.boxes.xyxy[places], view)
        xyxy = np.where(hidden[:, None], _followed(seen.xyxy, cover.seen), seen.xyxy)
        visible = cover.seen[:, 2] > cover.seen[:, 0]
        kept = visible & (xyxy[:, 2:] - xyxy[:, :2] >= LEAST_SIDE).all(1)
        boxes = Boxes(xyxy, target.boxes.kinds[places], seen.crowd)
        return Instances(take_boxes(boxes, kept), (), cover.cells[kept])

    # Findings

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Report objects without a mask, masks of another size, outside, doubled, or apart from their boxes."""
        stated = self.stated(row)
        wrong = list(mask_findings.check_frame(row, stated, facts, root))
        yield from wrong
        if any(finding.out for finding in wrong):
            return
        found = read_truth(self, row, root)
        yield from mask_findings.check_masks(row, stated, found, facts.size)
        self.noted[row.id, row.target] = mask_findings.measured(stated, found, facts.size)

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Report the number and size of the objects of each class, objects in an image, and images of background."""
        yield from mask_findings.check_set(rows, self.noted, self.truth.names, self.strata)

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Check that the kept images have objects with outlines at all."""
        super().usable(rows, findings)
        if not any(one.is_outlined for row in rows for one in self.stated(row)):
            raise DataError(
                f"has {count(len(rows), 'image')} with boxes, but no outline of any object. To learn the boxes: "
                "--task detect"
            )

    def describe(self) -> str:
        """Return the number of objects of the checked images."""
        objects = sum(len(note.areas) for note in self.noted.values())
        return f" with {count(objects, 'object')}" if objects else ""

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Return whether two rows have the same objects, in any order."""
        if one.target == other.target:
            return True
        a, b = (sorted(repr(stated) for stated in self.stated(row)) for row in (one, other))
        return a == b

    # Drawing

    def draw(self, image: Image, row: Row, root: Path, about: str = "") -> Image:
        """Return the image with its masks drawn on it, or only those of the class `about`, without its name."""
        from vitrail.tasks.instances.drawings import draw_true

        try:
            found = read_truth(self, row, root)
        except DataError:
            return image
        if any(mask.size != (image.height, image.width) for mask in found.masks):
            return image
        names = self.truth.names
        kept = [i for i, kind in enumerate(found.boxes.kinds.tolist()) if about in ("", names[kind])]
        shown = Instances(take_boxes(found.boxes, kept), tuple(found.masks[i] for i in kept))
        return draw_true(image, shown, names, plain=bool(about))


def _completed(boxes: Boxes, drawn: Sequence[Runs | None], size: tuple[int, int]) -> Instances:
    """Return objects without an outline as crowds that fill their box, and without those that have neither.

    A box of no size becomes that of its mask.
    """
    sized = [one if one is not None else Runs(size, b"") for one in drawn]
    bare = mask_areas(sized) == 0
    boxes = boxes._replace(crowd=boxes.crowd | bare)
    masks = [
        from_polygons([_outline(box)], size) if filled else one
        for one, box, filled in zip(sized, boxes.xyxy.tolist(), bare, strict=True)
    ]
    flat = box_areas(boxes.xyxy) == 0
    boxes = boxes._replace(xyxy=np.where(flat[:, None], boxes_around(masks), boxes.xyxy))
    return _taken(boxes, masks, (mask_areas(masks) > 0) & (box_areas(boxes.xyxy) > 0))


def _taken(boxes: Boxes, masks: Sequence[Runs], kept: NDArray[np.bool_]) -> Instances:
    return Instances(take_boxes(boxes, kept), tuple(masks[place] for place in np.flatnonzero(kept).tolist()))


def _outline(box: Sequence[float]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def _in_part(found: Instances, row: Row) -> Instances:
    """Return the objects in the window of a row, in its pixels; all of them for another row."""
    if not parts.is_window(row.part):
        return found
    left, top, right, bottom = parts.Part.of(row.part, row.path).numbers
    window = (left, top, right, bottom)
    masks = [to_runs(cut_mask(one, window)[None].astype(np.bool_))[0] for one in found.masks]
    xyxy = np.clip(found.boxes.xyxy - (left, top, left, top), 0, [right - left, bottom - top] * 2)
    return _taken(found.boxes._replace(xyxy=xyxy), masks, (mask_areas(masks) > 0) & (box_areas(xyxy) > 0))


def _hidden(xyxy: NDArray[np.float64], view: Any) -> NDArray[np.bool_]:
    """Return of which boxes (n, 4) of the original a view hides a part, or that it rotates: (n,)."""
    height, width = view.geometry.original
    _, shares = view.boxes(np.clip(xyxy, 0, [width, height, width, height]))
    moved = view.geometry.moved
    rotated = moved is not None and bool(np.any(np.asarray(moved)[[0, 1], [1, 0]]))
    hidden: NDArray[np.bool_] = (shares < 1 - _EXACT) | rotated
    return hidden


def _followed(boxes: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return boxes (n, 4) whose sides follow those around what is seen where these lie clearly inside."""
    inwards = np.array([1.0, 1.0, -1.0, -1.0])
    return np.where((seen - boxes) * inwards > ROUGH, seen, boxes)
