"""What a user may ask of answers, on the command line. No heavy import: help reads this page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """At which operating point a model answers, and from which probability on.

    Parameters
    ----------
    point
        operating point of a model trained for several: input size and share of kept tokens
        (see them: vitrail eval MODEL --points all)
    threshold
        probability, 0 to 1, below which nothing is answered: of a mask, such pixels are void
    """

    point: str | None = None
    threshold: float | None = None
