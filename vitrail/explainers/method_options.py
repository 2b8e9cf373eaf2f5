"""What a user may say of a method, on the command line. No heavy import: help reads this page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_OF_ALL = ("check", "at")
"""What is no setting of a method."""


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """Settings of a method, and whether maps are tested; what is not given stays as the method has it.

    Parameters
    ----------
    heads
        rollout: take the mean, max or min of the heads
    discard
        rollout: share of each row, its smallest weights, that is left out
    skip
        rollout: count the residual connection (default), or with --no-skip only attention
    layer
        attention: which layer, from 1; with neither layer nor head the figure is a grid of all
    head
        attention: which head, from 1; by default the mean of all
    query
        attention: who looks: cls, dist, reg1, or a patch as ROW,COLUMN
    window
        occlusion: side of the covering square in cells
    check
        test each map; --no-check saves the time of some hundred forwards an image
    at
        of an answer that lies in the image: the pixel x,y or the region left,top,right,bottom that is explained
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

    def given(self) -> Mapping[str, Any]:
        """Return what was said of the method."""
        said = asdict(self)
        return {name: value for name, value in said.items() if value is not None and name not in _OF_ALL}
