"""The prediction of panoptic segmentation: the segment of every pixel, and the parts of which it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vitrail.data.batch import Geometry
from vitrail.data.instances import to_runs
from vitrail.data.panoptic import PanopticMap, coloured_ids
from vitrail.plots import of_array, png_of
from vitrail.tasks.instances.prediction import Shapes
from vitrail.tasks.segment.areas import Areas


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of one image; `names` are all classes, `things` those whose objects are counted.

    `shapes` are the objects and `areas` the classes of the pixels of which it is made; `explained` is the one of them
    that holds what is explained.
    """

    found: PanopticMap
    names: tuple[str, ...]
    things: tuple[str, ...]
    geometry: Geometry
    shapes: Shapes
    areas: Areas
    explained: Shapes | Areas | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a segment: class, number within it, thing or stuff, confidence, pixels and their share."""
        sizes = np.bincount(self.found.ids.ravel(), minlength=len(self.found.kinds) + 1)[1:]
        counts: Counter[str] = Counter()
        rows = []
        for kind, score, pixels in zip(
            self.found.kinds.tolist(), self.found.scores.tolist(), sizes.tolist(), strict=True
        ):
            name = self.names[kind]
            counts[name] += 1
            rows.append(
                {
                    "class": name,
                    "number": counts[name],
                    "kind": "thing" if name in self.things else "stuff",
                    "confidence": round(score, 6),
                    "pixels": pixels,
                    "share": round(pixels / self.found.ids.size, 6),
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the size of the image and its segments, each with its mask as COCO's run lengths."""
        height, width = self.found.ids.shape
        masks = (
            to_runs((self.found.ids == number)[None])[0] for number in range(1, len(self.found.kinds) + 1)
        )
        segments = [{**row, "rle": mask.to_dict()} for row, mask in zip(self.rows(), masks, strict=True)]
        return {"width": width, "height": height, "segments": segments}

    def files(self) -> Mapping[str, bytes]:
        """Return the files of a prediction by file name suffix: COCO's image of segment numbers, as colours."""
        return {".panoptic.png": png_of(of_array(coloured_ids(self.found.ids)))}

    def called(self) -> list[str]:
        """Return what can be explained: each object found, "car #2", then the other classes that occur by size."""
        areas = sorted(
            (row for row in self.rows() if row["kind"] == "stuff"), key=lambda row: -int(row["pixels"])
        )
        return [*self.shapes.called(), *(str(row["class"]) for row in areas)]

    def about(self, choice: str) -> Segments:
        """Return the prediction for a choice: an object or a box of a thing, else a class, a pixel or a region."""
        thing = any(choice == name or choice.startswith((f"{name} #", f"{name} in ")) for name in self.things)
        return replace(self, explained=self.shapes.about(choice) if thing else self.areas.about(choice))

    def __str__(self) -> str:
        rows = self.rows()
        things = Counter(row["class"] for row in rows if row["kind"] == "thing")
        stuff = sorted((row for row in rows if row["kind"] == "stuff"), key=lambda row: -int(row["pixels"]))
        parts = [f"{number} {name}" for name, number in things.most_common()]
        parts += [f"{row['class']} {row['share']:.1%}" for row in stuff]
        return ", ".join(parts) if parts else "nothing found"
