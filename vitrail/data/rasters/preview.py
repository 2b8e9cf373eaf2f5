"""Colours of named bands, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.data.rasters.bands import COLOURS, Band
from vitrail.data.raw import shown

RADAR = (("vv",), ("vh",), ("vv",))
"""The bands of a radar that are shown as red, green and blue where there are no colours."""


def preview_of(image: NDArray[Any], bands: Sequence[Band]) -> NDArray[np.uint8]:  # (h, w, bands) -> (h, w, 3)
    """Return bands for display: red, green and blue by their names, or else the first ones.

    Each is stretched to its range in training, or to its own values if that is unknown.
    """
    known = {
        band.name.rpartition(" ")[2].casefold(): place for place, band in reversed(list(enumerate(bands)))
    }
    chosen = list(range(3 if len(bands) >= 3 else 1))
    for wanted in (COLOURS, RADAR):
        places = [next((known[one] for one in some if one in known), -1) for some in wanted]
        if -1 not in places:
            chosen = places
            break
    return shown(image[..., chosen], [bands[place].range for place in chosen])
