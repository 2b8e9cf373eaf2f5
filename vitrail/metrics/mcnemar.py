"""Compare two models on the same images with McNemar's test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vitrail.core.errors import DataError


class Paired(NamedTuple):
    """Number of images that only one of two models predicts correctly, and the p-value of the difference."""

    only_first: int
    only_second: int
    p: float

    def verdict(self, first: str, second: str) -> str:
        """Return which model is better, or that the difference is not significant."""
        if self.p >= 0.05:
            return (
                f"No significant difference: only {first} gets {self.only_first} images right, only {second} "
                f"{self.only_second}; the probability of such a difference by chance is {self.p:.2f}."
            )
        better, worse = (first, second) if self.only_first > self.only_second else (second, first)
        chance = f"{self.p:.3f}" if self.p >= 0.001 else "less than 0.001"
        return f"{better} is better than {worse}: the probability of such a difference by chance is {chance}."


def paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> Paired:
    """Compare the predictions of two models image by image with McNemar's exact test (1947, Psychometrika 12).

    Each mapping holds, by image id, whether the prediction is correct.

    Raises:
        DataError: the two mappings hold different images.
    """
    from scipy.stats import binomtest

    if set(first) != set(second):
        raise DataError("The two models were scored on different images. Score both on the same split.")
    only_first = sum(right and not second[one] for one, right in first.items())
    only_second = sum(not right and second[one] for one, right in first.items())
    different = only_first + only_second
    p = float(binomtest(only_first, different, 0.5).pvalue) if different else 1.0
    return Paired(only_first, only_second, p)
