"""Targets of panoptic segmentation: single objects, and the class of every pixel, from one list. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data import parts
from vitrail.data.findings import Finding
from vitrail.data.instances import Instances, boxes_around, cut_mask, mask_areas
from vitrail.data.labels import count
from vitrail.data.layouts.mask_files import MOST, VOID
from vitrail.data.manifest import KEPT, Row, dump_target
from vitrail.data.panoptic import Scene, painting_order
from vitrail.data.targets import read_truth
from vitrail.data.truth import Truth
from vitrail.tasks.detect.targets import ObjectTargets
from vitrail.tasks.instances import mask_findings
from vitrail.tasks.instances.mask_findings import Measured
from vitrail.tasks.instances.stated_objects import StatedObject, size_of, stated_objects
from vitrail.tasks.instances.targets import InstanceTargets
from vitrail.tasks.segment.targets import ALIKE, class_areas

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.image_facts import Facts

SHARED = 0.001
"""Share of the pixels that may lie in two segments before it is reported: borders are rarely exact."""


def check_things(truth: Truth) -> None:
    """Raise DataError if not both things and areas are among the classes."""
    if not truth.things or set(truth.things) == set(truth.names):
        raise DataError(
            "Panoptic segmentation needs classes of things and of stuff, and these are all of one kind. Choose other "
            "things (--things car,pedestrian), --task instances for things alone, or --task segment for areas alone."
        )


class MeasuredScene(NamedTuple):
    """What a check keeps of an image: its things, and the pixels of each class and of none (k + 1,)."""

    things: Measured
    pixels: NDArray[np.int64]


class PanopticTargets(ObjectTargets[Scene]):
    """The segments of an image in pixels of the upright original: single objects of things, areas of other classes.

    The target of a row is the list of instance segmentation with all segments, things and areas alike; the header tells
    which classes are things. What no segment covers is void. Where segments overlap, things lie on areas, and smaller
    segments on larger ones.
    """

    kinds = ("panoptic",)
    needs = "Panoptic segmentation", "segments of things and of areas"
    VOID: ClassVar[int] = VOID

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._things = InstanceTargets(Truth("instances", truth.things))

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header with all classes; DataError if the truths are not segments, or too many classes."""
        found = super().gather(truth, rows)
        check_things(found)
        if len(found.names) > MOST:
            raise DataError(
                f"These segments have {len(found.names):,} classes, and panoptic segmentation has at most {MOST}. Join "
                "some of them."
            )
        return replace(found, things=tuple(name for name in found.names if name in found.things))

    def read(self, row: Row, root: Path) -> Scene:
        """Return the segments of a row; raise DataError if they cannot be read."""
        stated = stated_objects(row)
        size = size_of(stated, row, root)
        areas = self._areas(stated, size)
        if parts.is_window(row.part):
            left, top, right, bottom = parts.Part.of(row.part, row.path).numbers
            areas = areas[top:bottom, left:right]
        return Scene(self._things.objects(self._only_things(stated), size, row), areas)

    def _only_things(self, stated: Sequence[StatedObject]) -> list[StatedObject]:
        return [one for one in stated if one.box.name in self.truth.things]

    def _areas(self, stated: Sequence[StatedObject], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the class of each pixel of an image (height, width)."""
        areas = np.full(size, VOID, np.uint8)
        places = {name: place for place, name in enumerate(self.truth.names)}
        unknown = next((one.box.name for one in stated if one.box.name not in places), None)
        if unknown is not None:
            raise DataError(f"A segment is of the class {unknown!r}, which this data set does not name.")
        drawn = [(one.box, mask) for one in stated if (mask := one.mask(size)) is not None]
        crowd = np.array([box.ignored for box, _ in drawn], np.bool_)
        things = np.array([box.name in self.truth.things for box, _ in drawn], np.bool_)
        for place in painting_order(mask_areas([mask for _, mask in drawn]), crowd, things):
            box, mask = drawn[place]
            left, top, right, bottom = boxes_around([mask])[0].astype(int).tolist()
            inner = cut_mask(mask, (left, top, right, bottom)) > 0
            areas[top:bottom, left:right][inner] = places[box.name]
        return areas

    def transform(self, target: Scene, view: Any) -> Scene:
        """Return the things that a view shows, boxes in pixels of its input, and the class of each of its pixels."""
        return Scene(self._things.transform(target.things, view), view.mask(target.areas, VOID))

    def rows_of_things(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows with their things alone, for what is learned of the objects of a data set."""
        return [
            row._replace(
                target=dump_target(
                    [one for one in json.loads(row.target) if one["class"] in self.truth.things]
                )
            )
            for row in rows
        ]

    # Findings

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Report segments of another size, without a pixel, on top of each other, and images without any."""
        stated = stated_objects(row)
        wrong = list(mask_findings.check_frame(row, stated, facts, root))
        yield from wrong
        if any(finding.out for finding in wrong):
            return
        scene = read_truth(self, row, root)
        yield from mask_findings.check_masks(row, self._only_things(stated), scene.things, facts.size)
        counts = np.bincount(scene.areas.ravel(), minlength=256)
        if not counts[:VOID].any():
            hint = "Add its segments, or remove the image."
            yield Finding("void image", "no segment at all", (row.id,), grave=True, out=True, hint=hint)
        yield from _overlapping(row, stated, scene)
        measured = mask_findings.measured(self._only_things(stated), scene.things, facts.size)
        pixels = np.array([*counts[: len(self.truth.names)], counts[VOID]], np.int64)
        self.noted[row.id, row.target] = MeasuredScene(measured, pixels)

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Report the area of each class, and the number and size of the things of each class."""
        kept = [row for row in rows if row.state == KEPT and (row.id, row.target) in self.noted]
        if not kept:
            return
        yield class_areas(self.truth.names, np.stack([self.noted[row.id, row.target].pixels for row in kept]))
        things = {key: scene.things for key, scene in self.noted.items()}
        yield from mask_findings.check_set(rows, things, self.truth.things, self.strata)

    def describe(self) -> str:
        """Return the number of things of the checked images."""
        things = sum(len(note.things.areas) for note in self.noted.values())
        return f" with {count(things, 'thing')}" if self.noted else ""

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Return whether two rows have the same segments, in any order."""
        return self._things.same(one, other, root)

    def alike(self, one: Row, other: Row, root: Path) -> bool:
        """Return whether most pixels of two images have the same class; images of different sizes do not contradict."""
        a, b = self.read(one, root).areas, self.read(other, root).areas
        return a.shape != b.shape or float((a == b).mean()) >= ALIKE

    # Drawing

    def draw(self, image: Image, row: Row, root: Path, about: str = "") -> Image:
        """Return the image with its classes drawn on it and a line around each thing, or only those of `about`."""
        from vitrail import plots
        from vitrail.tasks.instances.drawings import draw_true

        try:
            scene = read_truth(self, row, root)
        except DataError:
            return image
        if scene.areas.shape != (image.height, image.width):
            return image
        names = self.truth.names
        shown = [place for place, name in enumerate(names) if about in ("", name)]
        areas = np.where(np.isin(scene.areas, shown), scene.areas, VOID).astype(np.uint8)
        drawn = image if about else draw_true(image, self._numbered(scene.things), names, plain=True)
        return plots.mask_overlay(drawn, areas, self.colours(), strength=0.7 if about else 0.5)

    def _numbered(self, things: Instances) -> Instances:
        """Return things with their classes numbered among all."""
        places = np.array([self.truth.names.index(name) for name in self.truth.things], np.int64)
        return things._replace(boxes=things.boxes._replace(kinds=places[things.boxes.kinds]))


def _overlapping(row: Row, stated: Sequence[StatedObject], scene: Scene) -> Iterator[Finding]:
    """Report segments that cover pixels of others."""
    if parts.is_window(row.part):
        return
    height, width = scene.areas.shape
    masks = [mask for one in stated if (mask := one.mask((height, width))) is not None]
    twice = float(mask_areas(masks).sum()) - float((scene.areas != VOID).sum())
    if twice > SHARED * scene.areas.size:
        text = f"segments that overlap ({twice:,.0f} px): there things count, and of them the smaller one"
        yield Finding("segments overlap", text, (row.id,))
