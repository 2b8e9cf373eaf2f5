"""The prediction of detection: boxes in the pixels of the original, and which of them is explained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.data.batch import Geometry
from vitrail.data.boxes import FoundBoxes, iou_table, take_found
from vitrail.data.labels import is_no_class

Box = tuple[float, float, float, float]

CORNERS = ("left", "top", "right", "bottom")

_NUMBER = re.compile(r"(?P<name>.*?)\s*#\s*(?P<number>\d+)\s*$")
_PLACE = re.compile(r"(?P<name>.*?)\s*\bin\s+(?P<numbers>[-\d.]+(?:\s*,\s*[-\d.]+){3})\s*$")


@dataclass(frozen=True, slots=True)
class Objects:
    """The boxes of one image, the most confident first; `names` are the classes.

    `asked` and `box` are the class and the place to explain, "" and None the most confident box.
    """

    found: FoundBoxes
    names: tuple[str, ...]
    geometry: Geometry
    asked: str = ""
    box: Box | None = None

    def __len__(self) -> int:
        return len(self.found.scores)

    def labels(self) -> list[str]:
        """Return the class of each box."""
        return [self.names[kind] for kind in self.found.kinds.tolist()]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a box: class, number within its class, confidence, and corners in pixels."""
        counts: Counter[str] = Counter()
        rows = []
        for name, score, box in zip(
            self.labels(), self.found.scores.tolist(), self.found.xyxy.tolist(), strict=True
        ):
            counts[name] += 1
            sides = {side: round(number, 2) for side, number in zip(CORNERS, box, strict=True)}
            rows.append({"class": name, "number": counts[name], "confidence": round(score, 6), **sides})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the size of the image and its boxes."""
        height, width = self.geometry.original
        return {"width": width, "height": height, "boxes": self.rows()}

    def called(self) -> list[str]:
        """Return what each box is called: its class and its number within it, "platelet #3"."""
        return [f"{row['class']} #{row['number']}" for row in self.rows()]

    def counts(self) -> Mapping[str, int]:
        """Return the number of boxes of each class that occurs, the most frequent first."""
        return dict(Counter(self.labels()).most_common())

    def about(self, choice: str) -> Self:
        """Return the prediction for a choice: "platelet #3", "platelet", or "platelet in 10,20,90,80".

        Raises:
            UnknownNameError: there is no such box or class.
            SettingError: the place is not in this image.
        """
        if place := _PLACE.fullmatch(choice):
            return replace(self, asked=self._class(place["name"]), box=self._place(place["numbers"]))
        numbered = _NUMBER.fullmatch(choice)
        name = self._class(numbered["name"] if numbered else choice)
        wanted, called = f"{name} #{int(numbered['number']) if numbered else 1}", self.called()
        if wanted not in called:
            hint = f"There are: {', '.join(called) or 'none'}; for a place: {name} in 10,20,90,80."
            raise UnknownNameError("box", wanted, called, hint)
        left, top, right, bottom = self.found.xyxy[called.index(wanted)].tolist()
        return replace(self, asked=name, box=(left, top, right, bottom))

    def somewhere(self, name: str) -> Self:
        """Return the prediction for a class in the whole image, where no box was found."""
        height, width = self.geometry.original
        return replace(self, asked=name, box=(0.0, 0.0, float(width), float(height)))

    def _class(self, name: str) -> str:
        if name not in self.names:
            hint = f"There are: {', '.join(self.names)}; for one box of several: {self.names[0]} #2."
            raise UnknownNameError("class", name, self.names, hint)
        return name

    def _place(self, text: str) -> Box:
        """Return a box in pixels of the original."""
        height, width = self.geometry.original
        left, top, right, bottom = (float(one) for one in text.split(","))
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise SettingError(
                f"{text} is not inside this image of {width} x {height} pixels. Write left,top,right,bottom."
            )
        return left, top, right, bottom

    def target(self) -> tuple[str, Box]:
        """Return the class and the box to explain; without boxes the first class in the whole image."""
        if self.box is not None:
            return self.asked, self.box
        if not len(self):
            return self.somewhere(min(self.names, key=is_no_class)).target()
        left, top, right, bottom = self.found.xyxy[0].tolist()
        return self.labels()[0], (left, top, right, bottom)

    def without_overlap(self, most: float) -> Self:
        """Return the boxes that overlap no more confident box of their class by `most` (IoU) or more."""
        kinds = self.found.kinds
        rivals = (iou_table(self.found.xyxy, self.found.xyxy) >= most) & (kinds[:, None] == kinds[None])
        kept = np.ones(len(self), np.bool_)
        for place in range(len(self)):
            kept[place] = not (rivals[place, :place] & kept[:place]).any()
        return self.only(kept)

    def only(self, kept: NDArray[Any]) -> Self:
        """Return the boxes at these places, given as indices or as a mask."""
        return replace(self, found=take_found(self.found, kept))

    def outlines(self, place: int) -> tuple[NDArray[np.float64], ...]:
        """Return the outline of an object, closed lines of corners (n, 2) in pixels; none if it has a box alone."""
        return ()

    def __str__(self) -> str:
        counts = [f"{number} {name}" for name, number in self.counts().items()]
        return ", ".join(counts) if counts else "nothing found"
