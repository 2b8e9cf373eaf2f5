"""Targets of segmentation: reading, transforming and checking masks. No torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data import parts
from vitrail.data.decode import EXIF
from vitrail.data.findings import Finding, missing
from vitrail.data.labels import count, shorten
from vitrail.data.layouts import mask_files
from vitrail.data.manifest import KEPT, Row
from vitrail.data.open_image import read as read_bytes
from vitrail.data.targets import Targets, read_truth, refused_kind
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.image_facts import Facts

Mask = NDArray[np.uint8]

WEIGHT = 5.0
"""The largest weight of a rare class in the loss."""


ALIKE = 0.8
"""Share of equal pixels from which the masks of near-duplicate images do not contradict each other."""


_OF_DRAWN = (
    "Outlines use the image size in their JSON file (LabelMe: imageHeight and imageWidth; COCO: height and width). If "
    "the points fit the image, correct that size; otherwise export them again. Masks of single objects need the size "
    "of their image."
)


class SegmentTargets(Targets[Mask]):
    """The class of each pixel of the original, or `VOID`, which does not count: uint8 (height, width).

    A row gives its mask as vitrail/data/layouts/mask_files.py reads it: a file; {"classes": {name: file}}, one file per
    class; or {"size": …, "objects": […]}, outlines to paint.
    """

    VOID: ClassVar[int] = mask_files.VOID

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header unchanged; raise DataError if the truths are not masks or the classes have no names."""
        if truth.kind != "mask":
            raise refused_kind(truth, "Segmentation", "masks of classes")
        if not truth.names:
            raise DataError(
                "The classes of these masks have no names. Add the names to the header of the manifest, or to "
                "classes.txt beside the masks."
            )
        if not 2 <= len(truth.names) <= mask_files.MOST:
            raise DataError(
                f"Segmentation supports 2 to {mask_files.MOST} classes, but these masks have {len(truth.names)}. "
                "List the classes in classes.txt beside the folders."
            )
        return truth

    def read(self, row: Row, root: Path) -> Mask:
        """Return the mask of a row; raise DataError if it cannot be read or contains a value of no class."""
        mask = self._whole(row, root)
        if parts.is_window(row.part):
            left, top, right, bottom = parts.Part.of(row.part, row.path).numbers
            mask = mask[top:bottom, left:right]
        return mask

    def _whole(self, row: Row, root: Path) -> Mask:
        if not row.target:
            raise DataError(f"{row.id} has no mask. Add one, or remove the image.")
        if not row.target.startswith("{"):
            return self._file(row.target, root)
        stated: dict[str, Any] = json.loads(row.target)
        if "classes" in stated:
            return self._one_file_a_class(stated["classes"], root)
        places = {name: i for i, name in enumerate(self.truth.names)}
        height, width = stated["size"]
        return mask_files.paint(stated["objects"], (height, width), places, row.id)

    def _file(self, path: str, root: Path) -> Mask:
        return mask_files.decode_mask(mask_files.read_raw(read_bytes(root, path), path), self.truth, path)

    def _one_file_a_class(self, files: dict[str, str], root: Path) -> Mask:
        mask: Mask | None = None
        for place, name in enumerate(self.truth.names):
            if name not in files:
                continue
            raw = mask_files.read_raw(read_bytes(root, files[name]), files[name]).array
            region = raw.any(-1) if raw.ndim == 3 else raw != 0
            mask = np.zeros(region.shape, np.uint8) if mask is None else mask
            if mask.shape != region.shape:
                raise DataError(
                    f"{files[name]} has another size than the other masks of its image. Correct it."
                )
            mask[region] = place
        if mask is None:
            raise DataError(
                f"None of {', '.join(files)} is a class of this set. Correct the table of classes."
            )
        return mask

    def transform(self, target: Mask, view: Any) -> Mask:
        """Return the mask in the view of its image; pixels outside the image are void."""
        transformed: Mask = view.mask(target, self.VOID)
        return transformed

    def words(self, row: Row) -> str:
        """Return the file name of the mask."""
        return "a mask" if row.target.startswith("{") else row.target

    def same(self, one: Row, other: Row, root: Path) -> bool:
        return one.target == other.target or np.array_equal(self.read(one, root), self.read(other, root))

    def areas(self, rows: Sequence[Row], root: Path) -> NDArray[np.int64]:
        """Return the pixels of each class: (rows, k)."""
        counts = [np.bincount(self.read(row, root).ravel(), minlength=256) for row in rows]
        return np.array(counts, np.int64).reshape(len(rows), 256)[:, : len(self.truth.names)]

    # Findings

    def follow_header(self, truth: Truth, rows: Sequence[Row]) -> None:
        """Use the values and colours that another source has for the classes of this task, matched by name."""
        own = self.truth.names
        if truth.names == own:
            self.truth = replace(truth, names=own)
            return
        painted = any(row.target.startswith("{") for row in rows)
        if painted and truth.names[:1] != own[:1]:
            raise DataError(
                f"Pixels outside all outlines are {truth.names[0]!r} here, but the first class of the model is "
                f"{own[0]!r}. Rename the class in the data."
            )
        values = truth.values or tuple(range(len(truth.names)))
        value_of = dict(zip(truth.names, values, strict=False))
        # No pixel has a negative value, so a negative value stands for a class that this source does not have.
        stated = tuple(value_of.get(name, -1 - place) for place, name in enumerate(own))
        colours: tuple[tuple[int, int, int], ...] = ()
        if truth.colours:
            colour_of = dict(zip(truth.names, truth.colours, strict=False))
            colours = tuple(colour_of.get(name, (-1 - place, 0, 0)) for place, name in enumerate(own))
            colours += truth.colours[len(truth.names) :]
        beyond = values[len(truth.names) :]
        self.truth = replace(truth, names=own, values=(*stated, *beyond), colours=colours)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Exclude an image whose mask is missing, cannot be read, has another size, or is void everywhere."""
        if not row.target:
            hint = "Add one. For an image without any object, add a mask that contains only background."
            yield Finding("no mask", "no mask", (row.id,), grave=True, out=True, hint=hint)
            return
        try:
            mask = read_truth(self, row, root)
        except mask_files.StrangeValueError as error:
            if self.truth.values == (0, mask_files.VOID) and len(error.pixels) > 2:
                text = "a mask with smoothed edges, values between 0 and 255"
                yield Finding("smoothed mask", text, (row.id,), grave=True, out=True, hint=mask_files.SHARPEN)
                return
            self.noted[row.id, row.target] = dict(error.pixels)
            values = shorten(f"{value} ({pixels:,} px)" for value, pixels in error.pixels.items())
            text = f"a mask with {values}, which belongs to no class"
            hint = "Add it to the table of classes (as void if it does not count), or correct the mask."
            yield Finding("mask values", text, (row.id,), grave=True, out=True, hint=hint)
            return
        except mask_files.LossyMaskError:
            hint = (
                "Save masks as PNG from their source. Black-and-white masks can be converted with: "
                "mogrify -format png -threshold 50% masks/*.jpg (ImageMagick)."
            )
            text = "a mask in JPEG, which changes class numbers"
            yield Finding("lossy mask", text, (row.id,), grave=True, out=True, hint=hint)
            return
        counts = np.bincount(mask.ravel(), minlength=256)
        self.noted[row.id, row.target] = np.array(
            [*counts[: len(self.truth.names)], counts[self.VOID]], np.int64
        )
        if mask.shape == facts.size and not counts[: self.VOID].any():
            text = "a mask that is void everywhere"
            yield Finding(
                "void mask", text, (row.id,), grave=True, out=True, hint="It has no effect in training."
            )
        yield from self._check_geometry(row, facts, root, (mask.shape[0], mask.shape[1]))

    def _check_geometry(self, row: Row, facts: Facts, root: Path, size: tuple[int, int]) -> Iterator[Finding]:
        """Report a mask that does not fit its image, by their sizes and their EXIF orientations."""
        of_image = mask_files.orientation(read_bytes(root, row.path)) if EXIF in facts.notes else 1
        of_file = not row.target.startswith("{") and "!raw" not in row.target
        of_mask = mask_files.orientation(read_bytes(root, row.target)) if of_file else 1
        only_one = (of_image > 1) != (of_mask > 1)
        swaps_sides = max(of_image, of_mask) >= 5
        if only_one and swaps_sides and size == facts.size[::-1] != facts.size:
            text = f"a rotated mask: an EXIF tag rotates only {'the image' if of_image > 1 else 'the mask'}"
            hint = "Remove the tag, or rotate the mask and save it again."
            yield Finding("mask turn", text, (row.id,), grave=True, out=True, hint=hint)
        elif size != facts.size:
            text = f"a mask of {size[1]} × {size[0]} px for an image of {facts.size[1]} × {facts.size[0]}"
            outlines = row.target.startswith("{") and '"objects"' in row.target
            hint = _OF_DRAWN if outlines else "Save the mask in the size of its image, without smoothing."
            yield Finding("mask size", text, (row.id,), grave=True, out=True, hint=hint)
        elif only_one:
            fits = swaps_sides and size[0] != size[1]
            agrees = "and its size fits" if fits else "and its size does not show whether it fits"
            text = f"an EXIF tag that rotates only the {'image' if of_image > 1 else 'mask'}, {agrees}"
            hint = ""
            if not fits:
                hint = "Check that the mask fits its image: vitrail check DATA --html page.html"
            yield Finding("mask turn kept", text, (row.id,), grave=not fits, hint=hint)

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Report the area of each class, classes without pixels, and values or colours of no class."""
        yield from self._strange(rows)
        kept = [row for row in rows if row.state == KEPT]
        areas = [self.noted[row.id, row.target] for row in kept if self._areas_of(row) is not None]
        if not areas:
            return
        pixels = np.stack(areas)
        present = [name for name, total in zip(self.truth.names, pixels.sum(0)[:-1], strict=True) if total]
        absent = [name for name in self.truth.names if name not in present]
        if absent:
            text = (
                f"No mask contains {shorten(absent, 8)}, so it cannot be learned. Add images of it, or remove it from "
                "the table."
            )
            yield Finding("absent class", text, grave=True)
        yield from missing(rows, present, self.strata)
        yield class_areas(self.truth.names, pixels)

    def _areas_of(self, row: Row) -> NDArray[np.int64] | None:
        """Return the pixels of each class and of void; None if the mask was not checked or could not be read."""
        note = self.noted.get((row.id, row.target))
        return note if isinstance(note, np.ndarray) else None

    def _strange(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Report the values or colours of no class, with their pixels and number of masks over the whole set."""
        pixels: Counter[str] = Counter()
        ids: dict[str, list[str]] = {}
        for row in rows:
            note = self.noted.get((row.id, row.target))
            if not isinstance(note, dict):
                continue
            for value, number in note.items():
                pixels[value] += number
                ids.setdefault(value, []).append(row.id)
        if not pixels:
            return
        table = tuple(
            {"value": value, "pixels": number, "masks": len(ids[value])}
            for value, number in pixels.most_common(40)
        )
        values = [
            f"{one} ({number:,} px in {count(len(ids[one]), 'mask')})" for one, number in pixels.most_common()
        ]
        names = tuple(dict.fromkeys(name for own in ids.values() for name in own))
        yield Finding("unknown values", f"Of no class: {shorten(values, 8)}.", names, grave=True, table=table)

    def alike(self, one: Row, other: Row, root: Path) -> bool:
        """Return whether most pixels of two masks agree; in two frames of one video never all do."""
        a, b = self.read(one, root), self.read(other, root)
        return a.shape != b.shape or float((a == b).mean()) >= ALIKE

    def strata(self, row: Row) -> tuple[str, ...]:
        """Return the classes in the mask; none if the mask was not checked."""
        areas = self._areas_of(row)
        return () if areas is None else tuple(np.array(self.truth.names)[areas[:-1] > 0].tolist())

    def draw(self, image: Image, row: Row, root: Path, about: str = "") -> Image:
        """Return the image with its mask drawn over it, or only the class `about`."""
        from vitrail import plots

        try:
            mask = read_truth(self, row, root)
        except DataError:
            return image
        if mask.shape != (image.height, image.width):
            return image
        if about:
            mask = np.where(mask == self.truth.names.index(about), mask, self.VOID).astype(np.uint8)
        return plots.mask_overlay(image, mask, self._colours(), strength=0.7 if about else 0.55)

    def colour(self, name: str) -> str:
        """Return the colour of a class as text; "" for an unknown class."""
        if name not in self.truth.names:
            return ""
        return mask_files.hexed(self._colours()[self.truth.names.index(name)])

    def _colours(self) -> tuple[tuple[int, int, int], ...]:
        from vitrail.tasks.segment.areas import colours_of

        return colours_of(self.truth.names, self.truth.colours)


def class_areas(names: Sequence[str], pixels: NDArray[np.int64]) -> Finding:
    """Return a finding with the area of each class, from the pixels of each image: (images, k + 1), void last."""
    total = pixels.sum()
    table = tuple(
        {
            "class": name,
            "pixels": int(own.sum()),
            "share": round(float(own.sum() / total), 6),
            "images": int((own > 0).sum()),
        }
        for name, own in zip((*names, "void"), pixels.T, strict=True)
        if own.any()
    )
    shares = sorted(zip((pixels.sum(0) / total).tolist(), (*names, "void"), strict=True), reverse=True)
    shown = shorten((f"{name} {share:.1%}" for share, name in shares if share), 12)
    return Finding("class areas", f"Of {total:,} pixels: {shown}.", table=table)


def frequency_weights(areas: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return class weights from the pixels of each image, (n, k): √(median frequency / frequency), at most 5.

    The frequency of a class is its share of the pixels of the images that contain it (Eigen and Fergus 2015,
    arXiv:1411.4734, §4.3.2). The root and the limit keep a class with few pixels from dominating the loss.
    """
    totals = areas.sum(1, keepdims=True)
    available = (areas > 0) * totals
    share = areas.sum(0) / np.maximum(available.sum(0), 1)
    present = share > 0
    weights = np.ones(areas.shape[1], np.float32)
    if present.any():
        weights[present] = np.sqrt(np.median(share[present]) / share[present])
    return np.minimum(weights, WEIGHT).astype(np.float32)
