"""Whether two outputs of a detector find the same objects, for proofs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.layers.boxes import to_corners

SAME = 1e-3
"""Largest difference of a corner, in shares of the input, of boxes that are the same in a proof."""


class Level(NamedTuple):
    """From which confidence a box counts, and by what logits are divided for it."""

    threshold: float
    temperature: float


class Partners(NamedTuple):
    """Of each query of one output: whether it is clearly above the threshold, and the query of the other like it.

    All (b, q); `there` is whether there is such a query.
    """

    wanted: Tensor
    there: Tensor
    partner: Tensor

    @property
    def contained(self) -> Tensor:
        """Whether every wanted query has a partner: bool (b,)."""
        every: Tensor = (self.there | ~self.wanted).all(1)
        return every


def partners(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], level: Level, tolerance: float
) -> Partners:
    """Return for each query of `one` the nearest query of `other` with its class and, almost, its corners."""
    p, q = ((output["logits"].float() / level.temperature).sigmoid() for output in (one, other))
    sure, kind = p.max(-1)
    wanted = sure >= level.threshold + tolerance
    mine, others = (to_corners(output["boxes"].float()) for output in (one, other))
    apart = torch.cdist(mine, others, p=float("inf"))
    theirs, their_kind = q.max(-1)
    same = (apart <= max(SAME, tolerance)) & (kind[:, :, None] == their_kind[:, None])
    same = same & (theirs >= level.threshold - max(tolerance, 1e-6))[:, None]
    return Partners(wanted, same.any(2), apart.masked_fill(~same, float("inf")).argmin(2))
