"""Named bands: what the channels of a network are called, and how the values of a file are put into their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.labels import count, shorten


class Band(NamedTuple):
    """A band: its name, its unit ("" if unknown), and the 1st and 99th percentile of its values in training."""

    name: str
    unit: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def called(self) -> str:
        """The name with the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def told(self) -> str:
        """The name with the unit and the range in training."""
        return (
            self.called
            if self.range is None
            else f"{self.called}, {self.range[0]:.4g} to {self.range[1]:.4g}"
        )

    @property
    def range(self) -> tuple[float, float] | None:
        """The range of its values in training, or None if it is not known."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def in_order(
    image: NDArray[Any], found: Sequence[str], wanted: Sequence[str], file: str
) -> NDArray[Any]:  # (h, w, bands) -> (h, w, len(wanted))
    """Return the wanted bands of an image whose bands are called `found`; without names, only the number is checked.

    Raises:
        DataError: a band is missing, or the number of unnamed bands differs.
    """
    if not wanted or tuple(found) == tuple(wanted):
        return image
    if not found:
        if image.shape[2] == len(wanted):
            return image
        raise DataError(
            f"{file} holds {image.shape[2]} bands without names, the network reads {len(wanted)}: {shorten(wanted)}. "
            "Give a file with these bands."
        )
    return np.ascontiguousarray(image[..., places(found, wanted, file)])


def places(found: Sequence[str], wanted: Sequence[str], file: str) -> list[int]:
    """Return where the wanted bands stand among the found ones; upper and lower case are the same.

    Raises:
        DataError: a band is missing; the message names it, and the bands that are there.
    """
    known = {name.casefold(): place for place, name in reversed(list(enumerate(found)))}
    missing = [name for name in wanted if name.casefold() not in known]
    if missing:
        raise DataError(
            f"{file} lacks the {'band' if len(missing) == 1 else 'bands'} {shorten(missing)}; it holds "
            f"{shorten(found)}. Give the file with it as well, or name its bands as in training."
        )
    return [known[name.casefold()] for name in wanted]


COLOURS = (("b04", "b4", "red", "sr_b4"), ("b03", "b3", "green", "sr_b3"), ("b02", "b2", "blue", "sr_b2"))
"""Names of red, green and blue: in words, of Sentinel-2, and of Landsat 8 and 9."""


def colour_of(name: str) -> int | None:
    """Return the colour that a band shows: 0 for red, 1 for green, 2 for blue, None for another one.

    The name of a file may stand before that of its band: `scene_1 B04`.
    """
    own = name.rpartition(" ")[2].casefold()
    return next((i for i, names in enumerate(COLOURS) if own in names), None)


def unique(files: Sequence[tuple[str, Sequence[Band]]]) -> tuple[Band, ...]:
    """Return the bands of files, given with their names; a band whose name occurs twice gets the stem of its file.

    Raises:
        DataError: one file has two bands of one name.
    """
    tally = Counter(band.name for _, bands in files for band in bands)
    found = [
        band if tally[band.name] == 1 else band._replace(name=f"{PurePath(name).stem} {band.name}")
        for name, bands in files
        for band in bands
    ]
    again = [name for name, number in Counter(band.name for band in found).items() if number > 1]
    if again:
        raise DataError(
            f"{count(len(again), 'band')} called the same: {shorten(again)}. Give each its own name."
        )
    return tuple(found)
