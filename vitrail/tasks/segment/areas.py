"""The prediction of segmentation: the class of each pixel, areas, mask file, and the regions to explain."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail import plots
from vitrail.core.errors import SettingError, UnknownNameError
from vitrail.data.batch import Geometry

Mask = NDArray[np.uint8]
Spacing = tuple[float, float] | None

_PLACE = re.compile(r"(?P<name>.*?)\s*\b(?:at|in)\s+(?P<numbers>[-\d.]+(?:\s*,\s*[-\d.]+)*)\s*$")


@dataclass(frozen=True, slots=True)
class Areas:
    """The class of each pixel of an image: `mask` (height, width) contains indices into `names`, or `void`.

    `asked` is the class to explain, "" the largest one; `region` is the region to explain, (left, top, right, bottom)
    in pixels of the original, or None for the pixels that are predicted as the class. `spacing` is the pixel size
    (mm down, mm across).
    """

    mask: Mask
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    void: int
    geometry: Geometry
    spacing: Spacing = None
    asked: str = ""
    region: tuple[float, float, float, float] | None = None

    def pixels(self) -> dict[str, int]:
        """Return the number of pixels of each class, in the order of the classes."""
        counts = np.bincount(self.mask.ravel(), minlength=256)
        return {name: int(counts[place]) for place, name in enumerate(self.names)}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each class that occurs: pixels, share, and mm² if the pixel size is known."""
        counts = [(name, pixels) for name, pixels in self.pixels().items() if pixels]
        rows = []
        for name, pixels in sorted(counts, key=lambda pair: -pair[1]):
            row: dict[str, Any] = {
                "class": name,
                "pixels": pixels,
                "share": round(pixels / self.mask.size, 6),
            }
            if self.spacing is not None:
                row["mm2"] = round(pixels * (self.spacing[0] * self.spacing[1]), 4)
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the size of the image and the areas, the largest first."""
        height, width = self.mask.shape
        return {"width": width, "height": height, "areas": self.rows()}

    def files(self) -> Mapping[str, bytes]:
        """Return the files of a prediction by file name suffix: the mask as a PNG with a palette."""
        return {".mask.png": plots.png_of(plots.with_palette(self.mask, self.colours, self.void))}

    def ordered(self) -> tuple[str, ...]:
        """Return the classes that occur, the largest first."""
        return tuple(row["class"] for row in self.rows())

    def about(self, choice: str) -> Areas:
        """Return the prediction for a choice: "pole", "pole at 310,120", "at 310,120", or "pole in 10,20,90,80".

        Raises:
            UnknownNameError: there is no such class.
            SettingError: the pixel or region is not in this image.
        """
        match = _PLACE.fullmatch(choice)
        name, region = (match["name"], self._region(match["numbers"])) if match else (choice, None)
        if not name and region is not None:
            name = next(iter(self.within(region).ordered() or self.ordered()), self.names[0])
        if name not in self.names:
            hint = f"There are: {', '.join(self.names)}; for a pixel: pole at 310,120."
            raise UnknownNameError("class", name, self.names, hint)
        return replace(self, asked=name, region=region)

    def where(self, prefix: tuple[str, str] = ("at ", "in ")) -> str:
        """Return the region as text, "at 310,120" or "in 10,20,90,80"; "" for the whole image."""
        if self.region is None:
            return ""
        left, top, right, bottom = (f"{one:.10g}" for one in self.region)
        pixel = (self.region[2] - self.region[0], self.region[3] - self.region[1]) == (1, 1)
        return f"{prefix[0]}{left},{top}" if pixel else f"{prefix[1]}{left},{top},{right},{bottom}"

    def within(self, region: tuple[float, float, float, float]) -> Areas:
        """Return the prediction inside a region; pixels that it only touches are included."""
        left, top, right, bottom = region
        return replace(self, mask=self.mask[int(top) : math.ceil(bottom), int(left) : math.ceil(right)])

    def _region(self, text: str) -> tuple[float, float, float, float]:
        """Return a rectangle in pixels of the original; a pixel x,y is the rectangle of this pixel."""
        height, width = self.mask.shape
        numbers = [float(one) for one in text.split(",")]
        if len(numbers) == 2:
            x, y = (int(one) for one in numbers)
            numbers = [x, y, x + 1, y + 1]
        if len(numbers) != 4 or not (
            0 <= numbers[0] < numbers[2] <= width and 0 <= numbers[1] < numbers[3] <= height
        ):
            raise SettingError(
                f"{text} is not inside this image of {width} x {height} pixels. Write x,y or left,top,right,bottom."
            )
        left, top, right, bottom = numbers
        return left, top, right, bottom

    def __str__(self) -> str:
        areas = [f"{row['class']} {row['share']:.1%}" for row in self.rows()]
        return ", ".join(areas) if areas else "none of its classes"


def colours_of(
    names: Sequence[str], stated: Sequence[tuple[int, int, int]]
) -> tuple[tuple[int, int, int], ...]:
    """Return a colour for each class: the colours of the mask files if all are different, else distinct colours."""
    own = tuple(stated[: len(names)])
    return own if len(set(own)) == len(names) else plots.distinct_colours(len(names))
