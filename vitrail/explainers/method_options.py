"""Command-line options of explanation methods. No heavy imports: help reads this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_OF_ALL = ("check", "at", "point")
"""Fields that are not settings of a method."""


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """Settings of a method, whether maps are tested, and the operating point; options not given keep their default.

    Parameters
    ----------
    heads
        rollout: fuse the heads by mean, max or min
    discard
        rollout: share of each row, its smallest weights, that is set to 0
    skip
        rollout: include the residual connection (default), or with --no-skip only attention
    layer
        attention: which layer, from 1; with neither layer nor head the figure is a grid of all
    head
        attention: which head, from 1; by default the mean of all
    query
        attention: the query token: cls, dist, reg1, or a patch as ROW,COLUMN
    window
        occlusion: side of the covering square in cells
    check
        test each map; --no-check saves several hundred forward passes per image
    at
        for predictions with positions: the pixel x,y or the region left,top,right,bottom to explain
    point
        explain the network at this operating point, 160px/merge8; by default the whole network
        (list them: vitrail eval MODEL --points all)
    """

    heads: str | None = None
    discard: float | None = None
    skip: bool | None = None
    layer: int | None = None
    head: int | None = None
    query: str | None = None
    window: int | None = None
    check: bool = True
    at: str | None = None
    point: str | None = None

    def given(self) -> Mapping[str, Any]:
        """Return the settings of the method that were given."""
        options = asdict(self)
        return {name: value for name, value in options.items() if value is not None and name not in _OF_ALL}
