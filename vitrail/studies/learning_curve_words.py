"""What learning curves say, as lines for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitrail.metrics.learning_curve import Band, Forecast
from vitrail.studies.learning_curves import Curve, ModelCurve

HEAD = ("images", "score", "lowest – highest", "redraws")

NAMED = 3
"""Classes that are named, of those whose gain is surely more than nothing."""


def rows(curve: Curve) -> list[list[str]]:
    """Return the rows of the table of what was measured."""
    return [
        [f"{one.images:,}", percent(one.mean), _range(one.scores), str(len(one.scores))]
        for one in curve.points
    ]


def lines(found: ModelCurve) -> list[str]:
    """Return what the curves of a network say, the answer first."""
    forecast = found.whole.forecast
    if forecast is None:
        return [f"Nothing is foretold: {found.whole.why}. Add images, then ask again."]
    twice, four = 2 * forecast.largest, 4 * forecast.largest
    told = [
        f"twice the images ({twice:,.0f}): {points(forecast.gain(twice))} points (80 % sure)",
        f"four times ({four:,.0f}): {points(forecast.gain(four))} points (a weak guess: far beyond what was measured)",
        *falls(forecast),
        *needs(forecast),
    ]
    return told + class_lines(found)


def points(gain: Band) -> str:
    """Write the interval of a gain in points: +1.2 to +3.9."""
    return f"{_signed(gain.low)} to {_signed(gain.high)}"


def percent(share: float) -> str:
    """Write a share for people."""
    return f"{100 * share:.1f} %"


def falls(forecast: Forecast) -> list[str]:
    """Say where the score falls though there are more images."""
    return [
        f"the score falls from {small:,} to {large:,} images: this curve is not well-behaved, "
        "and what is foretold is worth less"
        for small, large in forecast.rises
    ]


def needs(forecast: Forecast) -> list[str]:
    """Say how many images the highest whole percent takes of which that can be told to a factor of two."""
    now = 1 - float(forecast.now.mean())
    for goal in range(99, int(100 * now), -1):
        need = forecast.need(1 - goal / 100)
        if need is not None and goal > 100 * now:
            return [f"{goal} % takes {need.low:,.0f} to {need.high:,.0f} images (80 % sure)"]
    return []


def best_classes(found: ModelCurve) -> list[tuple[str, Band]]:
    """Return the classes that gain most from twice the images, by the lower end, where that is above nothing."""
    gains = [(one.name, one.forecast.gain(2 * one.forecast.largest)) for one in found.classes if one.forecast]
    sure = [pair for pair in gains if pair[1].low > 0]
    return sorted(sure, key=lambda pair: -pair[1].low)[:NAMED]


def class_lines(found: ModelCurve) -> list[str]:
    """Say of which classes more images would help most, and of which nothing can be told."""
    told = [
        f"more {name} would help {'most' if i == 0 else 'too'}: {points(gain)} points "
        "(80 % sure, with twice as many of every class)"
        for i, (name, gain) in enumerate(best_classes(found))
    ]
    if found.classes and not told:
        told = ["no class surely gains from twice the images"]
    silent = sum(one.forecast is None for one in found.classes)
    return (
        [*told, f"{silent} of {len(found.classes)} classes have too few images to tell"] if silent else told
    )


def to_dict(found: ModelCurve) -> dict[str, Any]:
    """Return the curves of a network as plain data."""
    return {
        "model": found.model,
        "weights": found.weights,
        "imgsz": list(found.imgsz),
        "score": found.unit,
        "tested": found.tested,
        "says": lines(found),
        **_plain(found.whole),
        "classes": {one.name: _plain(one) for one in found.classes},
    }


def _plain(curve: Curve) -> dict[str, Any]:
    scored = [
        {
            "images": one.images,
            "score": round(one.mean, 6),
            "redraws": [round(score, 6) for score in one.scores],
        }
        for one in curve.points
    ]
    forecast = curve.forecast
    if forecast is None:
        return {"points": scored, "forecast": None, "why": curve.why}
    twice, four = 2 * forecast.largest, 4 * forecast.largest
    told = {
        "images": forecast.largest,
        "gain_from_twice": forecast.gain(twice).to_dict(),
        "gain_from_four_times": forecast.gain(four).to_dict(),
        "score_at_twice": _score(forecast.error(twice)).to_dict(),
        "falls": [list(pair) for pair in forecast.rises],
        "functions": dict(forecast.members),
    }
    return {"points": scored, "forecast": told}


def _score(error: Band) -> Band:
    return Band(1 - error.high, 1 - error.middle, 1 - error.low)


def _range(scores: Sequence[float]) -> str:
    return f"{100 * min(scores):.1f} – {100 * max(scores):.1f}" if len(scores) > 1 else "–"


def _signed(gain: float) -> str:
    """Write a gain in points with its sign; what rounds to nothing has the sign +."""
    found = round(100 * gain, 1) + 0.0
    return f"{'+' if found >= 0 else '−'}{abs(found):.1f}"
