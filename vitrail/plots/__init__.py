"""Drawings on images, figures with axes, and their encoding."""

from __future__ import annotations

from vitrail.plots.colours import (
    ACCENT,
    FRAME,
    INK,
    PAPER,
    SECOND,
)
from vitrail.plots.encoding import (
    data_uri,
    photo_uri,
    png_of,
    write_image,
)
from vitrail.plots.figures import (
    curves,
    reach,
    reliability,
    similarity_tiles,
)
from vitrail.plots.images import (
    HEAT,
    LONGEST,
    THIN,
    below,
    beside,
    distinct_colours,
    framed,
    heat,
    heat_colours,
    heat_grid,
    label_bars,
    mask_overlay,
    of_array,
    shown,
    signed,
    squares_apart,
    titled,
    with_legend,
    with_palette,
)
from vitrail.plots.intervals import (
    Bar,
    costs,
    intervals,
)

__all__ = [
    "ACCENT",
    "FRAME",
    "HEAT",
    "INK",
    "LONGEST",
    "PAPER",
    "SECOND",
    "THIN",
    "Bar",
    "below",
    "beside",
    "costs",
    "curves",
    "data_uri",
    "distinct_colours",
    "framed",
    "heat",
    "heat_colours",
    "heat_grid",
    "intervals",
    "label_bars",
    "mask_overlay",
    "of_array",
    "photo_uri",
    "png_of",
    "reach",
    "reliability",
    "shown",
    "signed",
    "similarity_tiles",
    "squares_apart",
    "titled",
    "with_legend",
    "with_palette",
    "write_image",
]
