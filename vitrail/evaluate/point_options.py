"""Command-line options of measuring operating points. No heavy imports: help reads this module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from vitrail.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PointOptions:
    """Which operating points are measured instead of the scores, and the models that are drawn beside them.

    Parameters
    ----------
    points
        measure accuracy against cost instead, on validation images: all operating points, or a list such as
        160px/0.7,160px/merge8; they are stored in the model file and can then be chosen
    beside
        other runs, such as smaller networks, to measure on the same images and draw beside the points
    """

    points: str | None = None
    beside: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()

    def refuse_idle(self) -> None:
        """Raise a UsageError for models beside points that are not measured."""
        if self.beside and self.points is None:
            raise UsageError("--beside needs --points: vitrail eval RUN --points all --beside OTHER-RUN")


DEFAULTS = PointOptions()
