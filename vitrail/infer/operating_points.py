"""Operating points of a trained model: parse the names that users give, and compare measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.core.errors import SettingError
from vitrail.layers.elastic import OperatingPoint, read_point


def chosen(wanted: str | OperatingPoint, known: Sequence[OperatingPoint]) -> OperatingPoint:
    """Return the operating point that a user named; SettingError lists those of the model."""
    point = read_point(wanted) if isinstance(wanted, str) else wanted
    if point in known:
        return point
    if len(known) == 1:
        raise SettingError(
            f"This model was trained for one operating point, {known[0]}, and not for {point}. "
            "Train a supervit, or any network with --elastic, for several operating points."
        )
    raise SettingError(
        f"This model was not trained for {point}. Its operating points: {', '.join(map(str, known))}."
    )


def asked_for(text: str, known: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return the points of a list such as 160px/0.7,224px/1, or all of them."""
    if text.strip() == "all":
        return list(known)
    return [chosen(one, known) for one in text.split(",")]


def beaten(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each measured point the name of a point that dominates it, or "".

    A point dominates another if score and speed are at least as good and one of them is better. A row has `point`,
    `score` (with a `value`) and `images_per_second`.
    """
    names = []
    for row in rows:
        score, speed = _good(row), row["images_per_second"]
        better = [
            other
            for other in rows
            if _good(other) >= score
            and other["images_per_second"] >= speed
            and (_good(other) > score or other["images_per_second"] > speed)
        ]
        best = max(better, key=lambda one: (_good(one), one["images_per_second"]), default=None)
        names.append(str(best["point"]) if best else "")
    return names


def _good(row: Mapping[str, Any]) -> float:
    """Return the score of a row, negated if lower is better."""
    value: float = row["score"]["value"]
    return -value if row["score"].get("better") == "lower" else value
