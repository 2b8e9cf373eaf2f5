"""A duel as plain data, as sentences, and as a Markdown table: what its files and its page are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitrail.runs.versions import environment
from vitrail.studies.compare.contestants import Contestant, augmentation_of
from vitrail.studies.compare.duel import Duel, Outcome
from vitrail.studies.compare.outcome import Pair, SharedImages, Side, by_class, pairs, scored
from vitrail.studies.compare.sentences import pair_lines, verdict_lines
from vitrail.studies.compare.speed import Speed
from vitrail.studies.compare.trained_models import Given

SHOWN = 50
"""Images that only one of two gets right, of which the report keeps the ids."""


def report_of(duel: Duel, outcome: Outcome, region: float, speeds: Mapping[str, Speed]) -> dict[str, Any]:
    """Return everything that was found as plain data; shares are in parts of one, times in seconds."""
    tested, sides = outcome.tested, list(outcome.sides)
    found = pairs(sides, tested, region)
    by_name = {one.name: one for one in duel.contestants}
    rows = [_contestant(side, by_name[side.name], tested, speeds.get(side.name)) for side in sides]
    rows.sort(key=lambda row: (row["crashed"] != "", -row["score"]["value"]))
    origins = {row["name"]: row["origin"] for row in rows}
    return {
        "data": {
            "source": duel.prepared.source,
            "images": len(tested.ids),
            "classes": list(duel.prepared.manifest.truth.names),
        },
        "score": outcome.score,
        "rounds": {
            "kind": "folds" if outcome.drawn.folds else "seeds on the given split",
            "number": outcome.times.rounds,
            "on_half": outcome.times.halves,
            "seconds": round(outcome.times.training, 1),
            "epochs": duel.epochs,
            "changed": outcome.times.said,
        },
        "region": region,
        "verdict": verdict_lines(
            found, [row["name"] for row in rows], duel.contestants, origins, not duel.epochs
        ),
        "contestants": rows,
        "pairs": [_pair(one) for one in found],
        "minutes": round(sum(row["seconds"] for row in rows) / 60, 1),
        "environment": environment(),
    }


def _contestant(side: Side, one: Contestant, tested: SharedImages, speed: Speed | None) -> dict[str, Any]:
    return _row(side, tested, speed) | {
        "weights": one.pretrained,
        "augmentation": augmentation_of(one.recipe),
        "imgsz": list(one.recipe.model.imgsz),
        "rounds": [] if side.scores is None else _rounds(side, tested),
    }


def _row(side: Side, tested: SharedImages, speed: Speed | None) -> dict[str, Any]:
    """Return what stands in the report of every contestant, trained here or before."""
    facts = side.facts
    results: Sequence[Mapping[str, Any]] = facts.get("results", ())
    calibrations = [result["result"].get("calibration", {}) for result in results]
    return {
        "name": side.name,
        "score": scored(side, tested),
        "crashed": side.crashed,
        "weights": "",
        "origin": facts.get("origin", ""),
        "augmentation": {},
        "imgsz": [],
        "lr": facts.get("lr"),
        "lr_tried": facts.get("tried", {}),
        "parameters": facts.get("parameters"),
        "macs": facts.get("macs"),
        "epochs": _mean([result["epochs"] for result in results]),
        "seconds": sum(result["seconds"] for result in results),
        "peak": max((result["peak"] for result in results), default=None),
        "calibration_error": _mean([one["ece_after"] for one in calibrations if "ece_after" in one]),
        "latency": speed.one if speed else None,
        "throughput": speed.images if speed else None,
        "rounds": [],
        "halves": list(facts.get("halves", ())),
        "by_class": by_class(side, tested),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _rounds(side: Side, tested: SharedImages) -> list[float]:
    """Return the mean score of every round."""
    assert side.scores is not None
    if (tested.folds < 0).all():
        return [round(float(one), 6) for one in side.scores.mean(1)]
    return [round(float(side.scores[0, tested.folds == fold].mean()), 6) for fold in np.unique(tested.folds)]


def _pair(pair: Pair) -> dict[str, Any]:
    found = pair.verdict
    plain = {
        "first": pair.first,
        "second": pair.second,
        "sentence": pair.sentence(),
        "crashed": list(pair.crashed),
    }
    if found is None or pair.difference is None:
        return plain
    return {
        **plain,
        "kind": found.kind,
        "difference": round(found.difference, 6),
        "low": round(found.low, 6),
        "high": round(found.high, 6),
        "confidence": round(found.confidence, 4),
        "passes_region": found.passes,
        "p": pair.difference.p,
        "more_images": found.more,
        "spread_of_trainings": round(pair.difference.run**0.5, 6),
        "only_first": {"images": len(pair.only_first), "ids": list(pair.only_first[:SHOWN])},
        "only_second": {"images": len(pair.only_second), "ids": list(pair.only_second[:SHOWN])},
    }


def given_report(given: Given, region: float, source: str, speeds: Mapping[str, Speed]) -> dict[str, Any]:
    """Return the comparison of trained models in the same form."""
    found = pairs(given.sides, given.tested, region)
    rows = [_given_row(side, given, speeds.get(side.name)) for side in given.sides]
    rows.sort(key=lambda row: -row["score"]["value"])
    line = (
        "These are trained models: the intervals count that the images are a sample, not that other trainings of the "
        "same networks would differ, so nothing is said of the architectures."
    )
    classes = sorted({name for classes in given.tested.classes for name in classes})
    return {
        "data": {"source": source, "images": len(given.tested.ids), "classes": classes},
        "score": given.score,
        "rounds": {
            "kind": "given models",
            "number": 1,
            "on_half": 0,
            "seconds": 0.0,
            "epochs": None,
            "changed": "",
        },
        "region": region,
        "verdict": [*pair_lines(found, [row["name"] for row in rows]), *given.notes, line],
        "contestants": rows,
        "pairs": [_pair(one) for one in found],
        "minutes": 0.0,
        "environment": environment(),
    }


def _given_row(side: Side, given: Given, speed: Speed | None) -> dict[str, Any]:
    return _row(side, given.tested, speed) | {"weights": side.facts["origin"], "imgsz": side.facts["imgsz"]}
