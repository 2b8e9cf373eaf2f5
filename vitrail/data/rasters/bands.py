"""Named bands: what the channels of a network are called, and how the values of a file are put into their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.labels import shorten
from vitrail.data.raw import shown


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


COLOURS = (("b04", "red", "sr_b4", "vv"), ("b03", "green", "sr_b3", "vh"), ("b02", "blue", "sr_b2", "vv"))
"""Names of the bands that are shown as red, green and blue; a radar's pair is shown where there are no colours."""


def preview_of(image: NDArray[Any], names: Sequence[str]) -> NDArray[np.uint8]:  # (h, w, bands) -> (h, w, 3)
    """Return bands for display: red, green and blue by their names, or else the first ones, each stretched."""
    known = {name.rpartition(" ")[2].casefold(): place for place, name in enumerate(names)}
    found = [next((known[one] for one in some if one in known), None) for some in COLOURS]
    chosen = [place for place in found if place is not None]
    return shown(image[..., chosen] if len(chosen) == len(found) else image)
