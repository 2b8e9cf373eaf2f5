"""Two models on the same images: is the difference more than chance?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vitrail.core.errors import DataError


class Paired(NamedTuple):
    """Images that only one of two models answers rightly, and how likely chance alone splits them so."""

    only_first: int
    only_second: int
    p: float

    def verdict(self, first: str, second: str) -> str:
        """Say who is better, or that nobody is."""
        if self.p >= 0.05:
            return (
                f"No clear winner: {self.only_first} images only {first} gets right, {self.only_second} only "
                f"{second}; chance alone would differ as much with probability {self.p:.2f}."
            )
        better, worse = (first, second) if self.only_first > self.only_second else (second, first)
        chance = f"{self.p:.3f}" if self.p >= 0.001 else "less than 0.001"
        return (
            f"{better} is better than {worse}: chance alone would differ as much with probability {chance}."
        )


def paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> Paired:
    """Compare two models' answers image by image with McNemar's exact test (1947, Psychometrika 12).

    Each says of every image, by id, whether it was answered rightly. DataError where the images differ.
    """
    from scipy.stats import binomtest

    if set(first) != set(second):
        raise DataError("The two models were scored on different images. Score both on the same split.")
    only_first = sum(right and not second[one] for one, right in first.items())
    only_second = sum(not right and second[one] for one, right in first.items())
    apart = only_first + only_second
    p = float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0
    return Paired(only_first, only_second, p)
