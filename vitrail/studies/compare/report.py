"""A duel as plain data, as sentences, and as a Markdown table: what its files and its page are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitrail.core.text import clock
from vitrail.data.labels import count
from vitrail.runs.versions import environment
from vitrail.studies.compare.contestants import Contestant, augmentation_differs, augmentation_of
from vitrail.studies.compare.duel import Duel, Outcome
from vitrail.studies.compare.given import Given
from vitrail.studies.compare.outcome import Pair, SharedImages, Side, by_class, pairs, scored
from vitrail.studies.compare.speed import Speed

SHOWN = 50
"""Images that only one of two gets right, of which the report keeps the ids."""


def report_of(duel: Duel, outcome: Outcome, region: float, speeds: Mapping[str, Speed]) -> dict[str, Any]:
    """Return everything that was found as plain data; shares are in parts of one, times in seconds."""
    tested, sides = outcome.tested, list(outcome.sides)
    found = pairs(sides, tested, region)
    by_name = {one.name: one for one in duel.contestants}
    rows = [_contestant(side, by_name[side.name], tested, speeds.get(side.name)) for side in sides]
    rows.sort(key=lambda row: (row["crashed"] != "", -row["score"]["value"]))
    return {
        "data": {
            "source": duel.prepared.source,
            "images": len(tested.ids),
            "classes": list(duel.prepared.manifest.truth.names),
        },
        "score": "accuracy" if outcome.score == "right" else outcome.score,
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
            found, duel.contestants, {row["name"]: row.get("origin", "") for row in rows}
        ),
        "contestants": rows,
        "pairs": [_pair(one) for one in found],
        "minutes": round(duel.seconds / 60, 1),
        "environment": environment(),
    }


def _contestant(side: Side, one: Contestant, tested: SharedImages, speed: Speed | None) -> dict[str, Any]:
    facts = side.facts
    results: Sequence[Mapping[str, Any]] = facts.get("results", ())
    halves: Sequence[Mapping[str, float]] = facts.get("halves", ())
    return {
        "name": side.name,
        "score": scored(side, tested),
        "crashed": side.crashed,
        "weights": one.pretrained,
        "origin": facts.get("origin", ""),
        "augmentation": augmentation_of(one.recipe),
        "imgsz": list(one.recipe.model.imgsz),
        "lr": facts.get("lr"),
        "lr_tried": facts.get("tried", {}),
        "parameters": facts.get("parameters"),
        "macs": facts.get("macs"),
        "epochs": _mean([result["epochs"] for result in results]),
        "seconds": sum(result["seconds"] for result in results),
        "peak": max((result["peak"] for result in results), default=None),
        "calibration_error": _mean(
            [
                result["result"]["calibration"]["ece_after"]
                for result in results
                if "ece_after" in result["result"].get("calibration", {})
            ]
        ),
        "latency": speed.one if speed else None,
        "throughput": speed.images if speed else None,
        "rounds": [] if side.scores is None else _rounds(side, tested),
        "halves": list(halves),
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
    plain = {"first": pair.first, "second": pair.second, "sentence": pair.sentence(), "crashed": pair.crashed}
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


def verdict_lines(
    found: Sequence[Pair], contestants: Sequence[Contestant], origins: Mapping[str, str]
) -> list[str]:
    """Return the sentences at the head: of each pair, and whether the architecture gets the credit."""
    lines = [pair.sentence() for pair in found]
    if len(found) > 1:
        lines.append(
            f"{count(len(found), 'pair')} are compared, so each has to be clearer (Holm's correction)."
        )
    return [*lines, credit(contestants, origins)]


def credit(contestants: Sequence[Contestant], origins: Mapping[str, str]) -> str:
    """Say whether a difference is one of the architectures."""
    if differing := augmentation_differs(contestants):
        return (
            f"No verdict on the architectures: the augmentation differs in {differing}. "
            "Leave --own-augmentation out to compare them."
        )
    weights = {one.name: one.pretrained for one in contestants}
    if set(weights.values()) == {"none"}:
        return (
            "All start from scratch, with equal augmentation and time: the difference is one of the architectures, "
            "each with its family's recipe."
        )
    each = ", ".join(f"{name}: {origins.get(name) or weights[name]}" for name in weights)
    return (
        f"Pretraining differs ({each}), so the architecture gets no credit for a difference. "
        "To compare the architectures alone: --weights none"
    )


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
        "score": "accuracy" if given.score == "right" else given.score,
        "rounds": {
            "kind": "given models",
            "number": 1,
            "on_half": 0,
            "seconds": 0.0,
            "epochs": None,
            "changed": "",
        },
        "region": region,
        "verdict": [*(pair.sentence() for pair in found), *given.notes, line],
        "contestants": rows,
        "pairs": [_pair(one) for one in found],
        "minutes": 0.0,
        "environment": environment(),
    }


def _given_row(side: Side, given: Given, speed: Speed | None) -> dict[str, Any]:
    facts = side.facts
    return {
        "name": side.name,
        "score": scored(side, given.tested),
        "crashed": "",
        "weights": facts["origin"],
        "origin": facts["origin"],
        "augmentation": {},
        "imgsz": facts["imgsz"],
        "lr": None,
        "lr_tried": {},
        "parameters": facts["parameters"],
        "macs": facts["macs"],
        "epochs": None,
        "seconds": 0.0,
        "peak": None,
        "calibration_error": None,
        "latency": speed.one if speed else None,
        "throughput": speed.images if speed else None,
        "rounds": [],
        "halves": [],
        "by_class": by_class(side, given.tested),
    }


HEAD = (
    "network",
    "score",
    "weights",
    "parameters",
    "multiply-adds",
    "one image",
    "images/s",
    "memory",
    "epochs",
)


def table_of(report: Mapping[str, Any]) -> list[list[str]]:
    """Return one row a contestant for people, under `HEAD`."""
    return [
        [
            row["name"],
            _score(row),
            row["weights"],
            _in_units(row["parameters"], ((1e6, " M"), (1e3, " k"))),
            _in_units(row["macs"], ((1e9, " G"), (1e6, " M"))),
            "–" if row["latency"] is None else f"{1000 * row['latency']:.1f} ms",
            "–" if row["throughput"] is None else f"{row['throughput']:,.0f}",
            _in_units(row["peak"], ((1e9, " GB"), (1e6, " MB"))),
            "–" if row["epochs"] is None else f"{row['epochs']:.1f}",
        ]
        for row in report["contestants"]
    ]


def _score(row: Mapping[str, Any]) -> str:
    if row["crashed"]:
        return "crashed"
    score = row["score"]
    return f"{100 * score['value']:.1f} % ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _in_units(value: float | None, units: Sequence[tuple[float, str]]) -> str:
    if value is None:
        return "–"
    size, name = next((one for one in units if value >= one[0]), (1.0, ""))
    return f"{value / size:.1f}{name}"


def notes_of(report: Mapping[str, Any]) -> list[str]:
    """Return how the comparison was made, in sentences."""
    made, data = report["rounds"], report["data"]
    if made["kind"] == "given models":
        return [
            f"{count(data['images'], 'test image')}, on which every model was scored; images of a group count once."
        ]
    if not made["seconds"] and not made["epochs"]:
        return [
            f"{count(data['images'], 'image')}, each tested once in {made['number']} folds by heads that never saw it; "
            "images of a group count once."
        ]
    kind = (
        f"{made['number']} folds: every image is tested once, by networks that never saw it"
        if made["kind"] == "folds"
        else f"{made['number']} trainings with other seeds, tested on the images that the source gives for it"
    )
    length = (
        f"A training took {clock(made['seconds'])} of the {report['minutes']:g} minutes, the same for all."
        if made["seconds"]
        else f"Every training had {count(made['epochs'], 'epoch')}."
    )
    lines = [
        f"{count(data['images'], 'test image')}; {kind}. {length}",
        "Each round draws split, order, augmentation and initial weights anew. The intervals (95 %) count both that "
        "the images are a sample and that trainings differ; images of a group count once.",
    ]
    lines += [f"Changed for want of time: {made['changed']}."] if made["changed"] else []
    lines += [f"{row['name']} crashed: {row['crashed']}" for row in report["contestants"] if row["crashed"]]
    return lines


def markdown_of(report: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown: verdict, table, how it was made."""
    rows = [HEAD, ["---"] * len(HEAD), *table_of(report)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    verdict = "\n".join(f"- {line}" for line in report["verdict"])
    return f"# Which network is better\n\n{verdict}\n\n{table}\n\n" + "\n\n".join(notes_of(report)) + "\n"
