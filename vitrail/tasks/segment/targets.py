"""A class for every pixel: how a mask stands in a row, how it is read and moved with its image. No torch."""

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
from vitrail.data.targets import Targets, read_truth
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.data.image_facts import Facts

Mask = NDArray[np.uint8]

WEIGHT = 5.0
"""The most that a rare class weighs in the loss."""


ALIKE = 0.8
"""Share of equal pixels from which on the masks of almost equal images are no contradiction."""


_OF_DRAWN = (
    "Outlines count in the size that their JSON file states (LabelMe: imageHeight and imageWidth; COCO: height and "
    "width): state that of the image there if the points lie right in it, or export them again; masks of single "
    "objects need the size of their image."
)


class SegmentTargets(Targets[Mask]):
    """The class of each pixel of the original, `VOID` where none counts: uint8 (height, width).

    A row names its mask as vitrail/data/layouts/mask_files.py reads it: a file; {"classes": {name: file}}, one file a
    class; or {"size": …, "objects": […]}, outlines to be painted.
    """

    VOID: ClassVar[int] = mask_files.VOID

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header as the layout states it; DataError where the truths are no masks, or name no classes."""
        if truth.kind != "mask":
            raise DataError(
                f"These are truths of the kind {truth.kind!r}, and no masks. Name a task that learns them."
            )
        if not truth.names:
            raise DataError(
                "These masks name no classes. Name them in the header of their manifest, or in classes.txt beside them."
            )
        if not 2 <= len(truth.names) <= mask_files.MOST:
            raise DataError(
                f"Segmentation takes 2 to {mask_files.MOST} classes, and the masks name {len(truth.names)}. "
                "Name them in classes.txt beside the folders."
            )
        return truth

    def read(self, row: Row, root: Path) -> Mask:
        """Return the mask of a row; DataError where it cannot be read, or holds what stands for no class."""
        mask = self._whole(row, root)
        if parts.is_window(row.part):
            left, top, right, bottom = parts.Part.of(row.part, row.path).numbers
            mask = mask[top:bottom, left:right]
        return mask

    def _whole(self, row: Row, root: Path) -> Mask:
        if not row.target:
            raise DataError(f"{row.id} has no mask. Add one, or leave the image out.")
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
            there = raw.any(-1) if raw.ndim == 3 else raw != 0
            mask = np.zeros(there.shape, np.uint8) if mask is None else mask
            if mask.shape != there.shape:
                raise DataError(f"{files[name]} has another size than the other masks of its image. Mend it.")
            mask[there] = place
        if mask is None:
            raise DataError(f"None of {', '.join(files)} is a class of this set. Mend the table of classes.")
        return mask

    def transform(self, target: Mask, view: Any) -> Mask:
        """Return the mask as a view of its image shows it; where no image is, it is void."""
        moved: Mask = view.mask(target, self.VOID)
        return moved

    def words(self, row: Row) -> str:
        """Return the name of the mask."""
        return "a mask" if row.target.startswith("{") else row.target

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Tell whether two masks are equal."""
        return one.target == other.target or np.array_equal(self.read(one, root), self.read(other, root))

    def areas(self, rows: Sequence[Row], root: Path) -> NDArray[np.int64]:
        """Return the pixels of each class: (rows, k)."""
        counts = [np.bincount(self.read(row, root).ravel(), minlength=256) for row in rows]
        return np.array(counts, np.int64).reshape(len(rows), 256)[:, : len(self.truth.names)]

    # Findings

    def follow_header(self, truth: Truth, rows: Sequence[Row]) -> None:
        """Take the numbers and colours of another source for the classes of this task, by their names."""
        own = self.truth.names
        if truth.names == own:
            self.truth = replace(truth, names=own)
            return
        painted = any(row.target.startswith("{") for row in rows)
        if painted and truth.names[:1] != own[:1]:
            raise DataError(
                f"What no outline covers is {truth.names[0]!r} here, and {own[0]!r} is the first class of the model. "
                "Rename it there."
            )
        values = truth.values or tuple(range(len(truth.names)))
        value_of = dict(zip(truth.names, values, strict=False))
        stated = tuple(
            value_of.get(name, -1 - place) for place, name in enumerate(own)
        )  # none has a negative one
        colours: tuple[tuple[int, int, int], ...] = ()
        if truth.colours:
            colour_of = dict(zip(truth.names, truth.colours, strict=False))
            colours = tuple(colour_of.get(name, (-1 - place, 0, 0)) for place, name in enumerate(own))
            colours += truth.colours[len(truth.names) :]
        beyond = values[len(truth.names) :]
        self.truth = replace(truth, names=own, values=(*stated, *beyond), colours=colours)

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Keep out an image whose mask is missing, cannot be read, has another size, or counts nowhere."""
        if not row.target:
            hint = "Add one; where nothing is to be found, a mask of background alone."
            yield Finding("no mask", "no mask", (row.id,), grave=True, out=True, hint=hint)
            return
        try:
            mask = read_truth(self, row, root)
        except mask_files.StrangeValueError as error:
            if self.truth.values == (0, mask_files.VOID) and len(error.pixels) > 2:
                text = "a mask whose edges were smoothed between 0 and 255"
                yield Finding("smoothed mask", text, (row.id,), grave=True, out=True, hint=mask_files.SHARPEN)
                return
            self.noted[row.id, row.target] = dict(error.pixels)
            shown = shorten(f"{value} ({pixels:,} px)" for value, pixels in error.pixels.items())
            text = f"a mask with {shown}, which no class has"
            hint = "Name it in the table of classes, void where it counts nowhere, or mend the mask."
            yield Finding("mask values", text, (row.id,), grave=True, out=True, hint=hint)
            return
        except mask_files.LossyMaskError:
            hint = (
                "Save masks as PNG from their source; black and white ones with: "
                "mogrify -format png -threshold 50% masks/*.jpg (ImageMagick)."
            )
            text = "a mask in JPEG, which blurs class numbers"
            yield Finding("lossy mask", text, (row.id,), grave=True, out=True, hint=hint)
            return
        counts = np.bincount(mask.ravel(), minlength=256)
        self.noted[row.id, row.target] = np.array(
            [*counts[: len(self.truth.names)], counts[self.VOID]], np.int64
        )
        if mask.shape == facts.size and not counts[: self.VOID].any():
            text = "a mask that is void everywhere"
            yield Finding(
                "void mask", text, (row.id,), grave=True, out=True, hint="Nothing is learned from it."
            )
        yield from self._lies(row, facts, root, (mask.shape[0], mask.shape[1]))

    def _lies(self, row: Row, facts: Facts, root: Path, size: tuple[int, int]) -> Iterator[Finding]:
        """Say where a mask does not lie as its image does, by their sizes and their EXIF tags."""
        of_image = mask_files.orientation(read_bytes(root, row.path)) if EXIF in facts.notes else 1
        of_file = not row.target.startswith("{") and "!raw" not in row.target
        of_mask = mask_files.orientation(read_bytes(root, row.target)) if of_file else 1
        one_alone = (of_image > 1) != (of_mask > 1)
        lying = max(of_image, of_mask) >= 5
        which = "its image" if of_image > 1 else "it"
        if one_alone and lying and size == facts.size[::-1] != facts.size:
            text = f"a mask that lies otherwise: an EXIF tag turns {which} alone"
            hint = "Take the tag off, or turn the mask and save it anew."
            yield Finding("mask turn", text, (row.id,), grave=True, out=True, hint=hint)
        elif size != facts.size:
            text = f"a mask of {size[1]} × {size[0]} px for an image of {facts.size[1]} × {facts.size[0]}"
            drawn = row.target.startswith("{") and '"objects"' in row.target
            hint = _OF_DRAWN if drawn else "Save the mask in the size of its image, without smoothing."
            yield Finding("mask size", text, (row.id,), grave=True, out=True, hint=hint)
        elif one_alone:
            sure = lying and size[0] != size[1]
            agrees = "and its size agrees" if sure else "and its size does not tell whether it fits"
            text = f"an EXIF tag that turns the {'image' if of_image > 1 else 'mask'} alone, {agrees}"
            hint = (
                ""
                if sure
                else "See whether the mask lies on what it shows: vitrail check DATA --html page.html"
            )
            yield Finding("mask turn kept", text, (row.id,), grave=not sure, hint=hint)

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Say how much of each class there is, which are nowhere, and which numbers or colours stand for none."""
        yield from self._strange(rows)
        kept = [row for row in rows if row.state == KEPT]
        areas = [self.noted[row.id, row.target] for row in kept if self._areas_of(row) is not None]
        if not areas:
            return
        pixels = np.stack(areas)
        seen = [name for name, there in zip(self.truth.names, pixels.sum(0)[:-1], strict=True) if there]
        absent = [name for name in self.truth.names if name not in seen]
        if absent:
            text = f"No mask shows {shorten(absent, 8)}: never learned. Add images of it, or take it out of the table."
            yield Finding("absent class", text, grave=True)
        yield from missing(rows, seen, self.strata)
        yield _areas(self.truth.names, pixels)

    def _areas_of(self, row: Row) -> NDArray[np.int64] | None:
        """Return the pixels of each class, and of void, where the mask was looked at and could be read."""
        known = self.noted.get((row.id, row.target))
        return known if isinstance(known, np.ndarray) else None

    def _strange(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Sum up over the set which numbers or colours stand for no class, in how many masks."""
        pixels: Counter[str] = Counter()
        ids: dict[str, list[str]] = {}
        for row in rows:
            known = self.noted.get((row.id, row.target))
            for value, number in known.items() if isinstance(known, dict) else ():
                pixels[value] += number
                ids.setdefault(value, []).append(row.id)
        if not pixels:
            return
        table = tuple(
            {"value": value, "pixels": number, "masks": len(ids[value])}
            for value, number in pixels.most_common(40)
        )
        shown = shorten(
            (
                f"{one} ({number:,} px in {count(len(ids[one]), 'mask')})"
                for one, number in pixels.most_common()
            ),
            8,
        )
        named = tuple(dict.fromkeys(name for own in ids.values() for name in own))
        yield Finding("unknown values", f"Of no class: {shown}.", named, grave=True, table=table)

    def alike(self, one: Row, other: Row, root: Path) -> bool:
        """Tell whether most pixels of two masks agree: those of two frames of one film never do all."""
        a, b = self.read(one, root), self.read(other, root)
        return a.shape != b.shape or float((a == b).mean()) >= ALIKE

    def strata(self, row: Row) -> tuple[str, ...]:
        """Return the classes that the mask shows, where it was looked at; else none."""
        areas = self._areas_of(row)
        return () if areas is None else tuple(np.array(self.truth.names)[areas[:-1] > 0].tolist())

    def draw(self, image: Image, row: Row, root: Path, about: str = "") -> Image:
        """Return the image with its mask laid over, of one class alone where that is asked for."""
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
        """Return the colour in which a class is drawn."""
        return (
            mask_files.hexed(self._colours()[self.truth.names.index(name)])
            if name in self.truth.names
            else ""
        )

    def _colours(self) -> tuple[tuple[int, int, int], ...]:
        from vitrail.tasks.segment.areas import colours_of

        return colours_of(self.truth.names, self.truth.colours)


def _areas(names: Sequence[str], pixels: NDArray[np.int64]) -> Finding:
    """Return how much of the images each class has: (images, k + 1), void last."""
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
    """Return what each class weighs by the pixels of each image, (n, k): √(median frequency / frequency), at most 5.

    The frequency of a class is its share of the pixels of the images that show it (Eigen and Fergus 2015,
    arXiv:1411.4734, §4.3.2); the root and the cap keep a class of a few pixels from ruling the loss.
    """
    of_images = areas.sum(1, keepdims=True)
    seen = (areas > 0) * of_images
    share = areas.sum(0) / np.maximum(seen.sum(0), 1)
    there = share > 0
    weights = np.ones(areas.shape[1], np.float32)
    if there.any():
        weights[there] = np.sqrt(np.median(share[there]) / share[there])
    return np.minimum(weights, WEIGHT).astype(np.float32)
