"""Targets of detection: reading, transforming and checking the boxes of an image. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, SettingError
from vitrail.data import parts
from vitrail.data.boxes import Boxes, clip_to, iou_table, make_boxes, view_boxes
from vitrail.data.findings import Finding
from vitrail.data.labels import count, natural
from vitrail.data.manifest import Row
from vitrail.data.open_image import load
from vitrail.data.targets import Targets, read_truth, refused_kind
from vitrail.data.truth import Truth
from vitrail.tasks.detect import box_findings
from vitrail.tasks.detect.box_targets import StatedBox, stated_boxes

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.image_facts import Facts

ALIKE = 0.8
"""Share of boxes with a partner, from which the truths of near-duplicate images do not contradict each other."""

MOST_CLASSES = 10_000

MEASURED = 64
"""Images whose boxes are measured, at least, if there are as many."""


T = TypeVar("T")


class ObjectTargets(Targets[T]):
    """The objects of an image, each with a box in pixels of the upright original; without any it is background.

    The target of a row is a list of objects as JSON: {"class": name, "box": [left, top, right, bottom]}, and optionally
    "crowd" or "difficult": true, and "of": [height, width], the size of the image that the annotation states.
    """

    kinds: ClassVar[tuple[str, ...]] = ("boxes", "instances")
    """The kinds of truths that are read."""
    needs: ClassVar[tuple[str, str]] = "Detection", "boxes of objects"
    """The task as a noun, and what it needs, for messages."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._places = {name: i for i, name in enumerate(truth.names)}

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header with all classes; DataError if the truths are not boxes or there is no class."""
        if truth.kind not in cls.kinds:
            raise refused_kind(truth, *cls.needs)
        named = {one.name for row in rows for one in _stated_or_none(row)} - set(truth.names)
        names = (*truth.names, *sorted(named, key=natural))
        if not 1 <= len(names) <= MOST_CLASSES:
            raise DataError(
                f"Detection supports 1 to {MOST_CLASSES:,} classes, but these boxes have {len(names)}. Name the class "
                "of each box in the annotations."
            )
        return replace(truth, names=names)

    def follow_header(self, truth: Truth, rows: Sequence[Row]) -> None:
        """Check that the classes of another source are classes of this task; boxes name their class themselves."""
        unknown = sorted(
            {one.name for row in rows for one in _stated_or_none(row)} - set(self.truth.names), key=natural
        )
        if unknown:
            raise DataError(
                f"These boxes have the classes {', '.join(unknown[:5])}, which the model does not have. There are: "
                f"{', '.join(self.truth.names[:12])}."
            )

    def boxes(self, stated: Sequence[StatedBox], row: Row) -> Boxes:
        """Return stated boxes in pixels of the row's image, or of its window, which clips them.

        Raises:
            DataError: this set does not name the class of a box.
        """
        boxes = self.unclipped(stated, row)
        if not parts.is_window(row.part):
            return boxes
        left, top, right, bottom = parts.Part.of(row.part, row.path).numbers
        return clip_to(boxes._replace(xyxy=boxes.xyxy - (left, top, left, top)), (bottom - top, right - left))

    def unclipped(self, stated: Sequence[StatedBox], row: Row) -> Boxes:
        """Return stated boxes, in their order, in pixels of the whole image; raise DataError as `boxes` does."""
        unknown = next((one.name for one in stated if one.name not in self._places), None)
        if unknown is not None:
            raise DataError(
                f"{row.id} has a box of the class {unknown!r}, which this data set does not name. Add it, or rename "
                "the class of the box."
            )
        kinds = [self._places[one.name] for one in stated]
        return make_boxes([one.corners for one in stated], kinds, [one.ignored for one in stated])

    def most_objects(self, rows: Sequence[Row]) -> int:
        """Return the largest number of boxes of one image, without crowds."""
        numbers = (sum(one.has_area and not one.ignored for one in stated_boxes(row)) for row in rows)
        return max(numbers, default=0)

    def usual_side(self, rows: Sequence[Row], root: Path) -> float | None:
        """Return the median side of boxes, in shares of their image, from some of the rows; None without any box.

        The side of a box is the root of its area. Sizes of images are those of the annotations, else of the files.
        """
        sides: list[float] = []
        for row in rows[:: max(1, len(rows) // MEASURED)]:
            boxes = [one for one in stated_boxes(row) if one.has_area and not one.ignored]
            if not boxes or parts.is_window(row.part):
                continue
            height, width = boxes[0].stated_size
            if not height:
                height, width = load(root, row.path, part=row.part).image.shape[:2]
            xyxy = np.array([one.corners for one in boxes])
            sides += np.sqrt((xyxy[:, 2:] - xyxy[:, :2]).prod(1) / (height * width)).tolist()
        return None if not sides else round(float(np.clip(np.median(sides), 0.01, 1.0)), 4)

    def strata(self, row: Row) -> tuple[str, ...]:
        """Return the classes in an image, in the order of the data set."""
        found = {one.name for one in _stated_or_none(row) if one.has_area}
        return tuple(name for name in self.truth.names if name in found)

    def words(self, row: Row) -> str:
        """Return the number of boxes of each class: "12 RBC, 1 WBC"; "no object" without any."""
        counts = Counter(one.name for one in _stated_or_none(row) if one.name in self._places)
        return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "no object"

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Return whether two rows have the same boxes, in any order."""
        if one.target == other.target:
            return True
        a, b = (sorted((s.name, s.ignored, *s.corners) for s in stated_boxes(row)) for row in (one, other))
        return a == b

    def alike(self, one: Row, other: Row, root: Path) -> bool:
        """Return whether most boxes of two near-duplicates have a partner of their class with an IoU of one half.

        Images of different sizes cannot be compared and do not contradict each other.
        """
        sizes = [{s.stated_size for s in stated_boxes(row)} for row in (one, other)]
        if all(sizes) and sizes[0] != sizes[1]:
            return True
        a, b = (self.boxes([box for box in stated_boxes(row) if box.has_area], row) for row in (one, other))
        if not len(a.kinds) + len(b.kinds):
            return True
        paired = (iou_table(a.xyxy, b.xyxy) >= 0.5) & (a.kinds[:, None] == b.kinds[None])
        partners = int(paired.any(1).sum() + paired.any(0).sum())
        return partners >= ALIKE * (len(a.kinds) + len(b.kinds))

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Check that the kept images have boxes at all."""
        super().usable(rows, findings)
        if not any(self.strata(row) for row in rows):
            raise DataError(
                f"has {count(len(rows), 'image')} but no object that can be used. This task needs {self.needs[1]}: add "
                "them to the annotations."
            )

    def class_weights(self, rows: Sequence[Row], root: Path) -> NDArray[np.float32]:
        """Raise SettingError: the loss of detection balances objects and background itself."""
        raise SettingError(
            "--balance loss is for tasks with one class per image or pixel. For boxes use --balance sampling."
        )

    def colour(self, name: str) -> str:
        """Return the colour of a class as text; "" for an unknown class."""
        if name not in self._places:
            return ""
        return "#{:02x}{:02x}{:02x}".format(*self.colours()[self._places[name]])

    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """Return the colour of each class."""
        from vitrail import plots

        return plots.distinct_colours(len(self.truth.names))


class DetectTargets(ObjectTargets[Boxes]):
    """The boxes of an image in pixels of the upright original; an image without any box is background."""

    def read(self, row: Row, root: Path) -> Boxes:
        """Return the boxes of a row without those of no size; raise DataError if they cannot be read.

        Boxes may end outside the image: `vitrail.data.boxes.clip_to` clips them, and so does `transform`.
        """
        return self.boxes([one for one in stated_boxes(row) if one.has_area], row)

    def transform(self, target: Boxes, view: Any) -> Boxes:
        """Return the boxes that a view of the image shows, in pixels of its input."""
        return view_boxes(target, view)

    # Findings

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Report boxes outside the image, of no size, doubled, or for another frame; the latter exclude the image."""
        stated = stated_boxes(row)
        boxes = read_truth(self, row, root)
        yield from box_findings.check_frame(row, stated, facts, root)
        yield from box_findings.check_boxes(row, stated, boxes, facts.size)
        self.noted[row.id, row.target] = clip_to(boxes, facts.size)

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Report the number and size of the boxes of each class, objects in an image, and images of background."""
        yield from box_findings.check_set(rows, self.noted, self.truth.names, self.strata)

    def describe(self) -> str:
        """Return the number of boxes of the checked images."""
        boxes = sum(len(note.kinds) for note in self.noted.values())
        return f" with {count(boxes, 'box', 'boxes')}" if boxes else ""

    # Drawing

    def draw(self, image: Image, row: Row, root: Path, about: str = "") -> Image:
        """Return the image with its boxes drawn on it, or only those of the class `about`, without its name."""
        from vitrail import plots

        try:
            boxes = read_truth(self, row, root)
        except DataError:
            return image
        boxes = clip_to(boxes, (image.height, image.width))
        names, colours = self.truth.names, self.colours()
        columns = zip(boxes.xyxy.tolist(), boxes.kinds.tolist(), boxes.crowd.tolist(), strict=True)
        drawn = [
            plots.DrawnBox(tuple(corners), "" if about else names[kind], colours[kind], names[kind], crowd)
            for corners, kind, crowd in columns
            if about in ("", names[kind])
        ]
        return plots.draw_boxes(image, drawn, weight=2.0 if about else 1.0)


def _stated_or_none(row: Row) -> list[StatedBox]:
    """Return the boxes of a row; none if they cannot be read, which the check reports."""
    try:
        return stated_boxes(row)
    except DataError:
        return []
