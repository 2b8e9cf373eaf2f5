"""Drawings on images, figures with axes, and their encoding.

Figures with axes are resolved on first use (PEP 562): Matplotlib is slow to import, and no prediction needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vitrail.plots.boxes import DrawnBox, compare_boxes, draw_boxes
from vitrail.plots.clips import RATE, animation, seconds, strip
from vitrail.plots.colours import (
    ACCENT,
    FAINT,
    FRAME,
    INK,
    PAPER,
    SECOND,
    SERIES,
)
from vitrail.plots.encoding import (
    data_uri,
    photo_uri,
    png_of,
    write_image,
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
    heated,
    label_bars,
    mask_overlay,
    of_array,
    shown,
    signed,
    squares_apart,
    titled,
    with_legend,
    with_palette,
    with_scale,
)

if TYPE_CHECKING:
    from vitrail.plots.figures import Fan as Fan
    from vitrail.plots.figures import curves as curves
    from vitrail.plots.figures import fan as fan
    from vitrail.plots.figures import reach as reach
    from vitrail.plots.figures import reliability as reliability
    from vitrail.plots.figures import similarity_tiles as similarity_tiles
    from vitrail.plots.interval_figures import Bar as Bar
    from vitrail.plots.interval_figures import costs as costs
    from vitrail.plots.interval_figures import intervals as intervals

_FIGURES = {
    "Fan": "vitrail.plots.figures",
    "curves": "vitrail.plots.figures",
    "fan": "vitrail.plots.figures",
    "reach": "vitrail.plots.figures",
    "reliability": "vitrail.plots.figures",
    "similarity_tiles": "vitrail.plots.figures",
    "Bar": "vitrail.plots.interval_figures",
    "costs": "vitrail.plots.interval_figures",
    "intervals": "vitrail.plots.interval_figures",
}

__all__ = [
    "ACCENT",
    "FAINT",
    "FRAME",
    "HEAT",
    "INK",
    "LONGEST",
    "PAPER",
    "RATE",
    "SECOND",
    "SERIES",
    "THIN",
    "Bar",
    "DrawnBox",
    "Fan",
    "animation",
    "below",
    "beside",
    "compare_boxes",
    "costs",
    "curves",
    "data_uri",
    "distinct_colours",
    "draw_boxes",
    "fan",
    "framed",
    "heat",
    "heat_colours",
    "heat_grid",
    "heated",
    "intervals",
    "label_bars",
    "mask_overlay",
    "of_array",
    "photo_uri",
    "png_of",
    "reach",
    "reliability",
    "seconds",
    "shown",
    "signed",
    "similarity_tiles",
    "squares_apart",
    "strip",
    "titled",
    "with_legend",
    "with_palette",
    "with_scale",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name not in _FIGURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FIGURES[name]), name)
