"""Measure the operating points of a model: score, cost in GMACs, and speed on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import SettingError, VitrailError
from vitrail.data.loader import load_for
from vitrail.data.manifest import Manifest, Row, group_key
from vitrail.evaluate.collect_answers import evaluate
from vitrail.infer.backends import PLAIN
from vitrail.infer.operating_points import beaten
from vitrail.infer.point_speeds import (
    Runner,
    fastest_backend,
    groups,
    measure_speeds,
    place_of,
    runner_at,
)
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.proof_images import Reader, spread
from vitrail.layers.elastic import OperatingPoint
from vitrail.metrics.intervals import bootstrap, resampled
from vitrail.models.factory import count_macs
from vitrail.tasks.abstention import Abstaining
from vitrail.tasks.base import Task
from vitrail.tasks.result import Evaluation, Number, headline

MOST_IMAGES = 2000
"""Largest number of images on which points are scored."""

Say = Callable[[str], None]


class MeasuredPoints(NamedTuple):
    """The name of the score, one row per operating point, and what there is to say about points that cannot run."""

    score: str
    rows: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


class Images(NamedTuple):
    """The images that points are measured on, and what they are called."""

    manifest: Manifest
    rows: Sequence[Row]
    called: str = "validation images"


def measure_points(
    predictor: Predictor, wanted: Sequence[OperatingPoint], images: Images, say: Say, *, plain: bool = False
) -> MeasuredPoints:
    """Return one row per operating point: score with interval, GMACs of the encoder, speed on this machine.

    A row also holds what was calibrated at the point (`task`). Each point runs in the backend that is fastest for the
    whole network, or in float32 where that is far off; with `plain`, in float32.
    """
    images = images._replace(rows=spread(images.rows, MOST_IMAGES))
    readers = _readers(predictor, images)
    say(f"Measuring {len(wanted)} operating points on {len(images.rows):,} {images.called}.")
    plan = PLAIN if plain else fastest_backend(predictor, readers)
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    right: dict[str, NDArray[Any]] = {}
    name = ""
    for some in groups(predictor, wanted):
        scored: dict[OperatingPoint, dict[str, Any]] = {}
        runners: dict[OperatingPoint, Runner] = {}
        for point in some:
            try:
                runner = runner_at(predictor, plan, point, readers)
                evaluation = _evaluated(predictor, point, runner, images)
            except VitrailError as error:
                notes.append(f"{point} cannot run: {error}")
                continue
            name, row = _scored(predictor, point, evaluation, images)
            right |= _right(row, evaluation)
            scored[point], runners[point] = row, runner
            say(f"{point!s:20} {headline_text(row)}")
        say("Timing them in turn.")
        speeds = measure_speeds(predictor, runners, readers)
        here = {"machine": place_of(predictor), "by_training": plain}
        found += [scored[point] | speeds[point].to_dict() | here for point in runners]
    if not found:
        raise SettingError(" ".join(notes) or "There is no operating point to measure.")
    whole = right.get(str(predictor.points[-1]))
    rows = [row | _lost(whole, right.get(row["point"]), images.rows) for row in found]
    return MeasuredPoints(name, with_beaten(rows), tuple(notes))


def with_beaten(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with the name of a point that dominates each, or ""."""
    return [{**row, "beaten_by": by} for row, by in zip(rows, beaten(rows), strict=True)]


def headline_text(row: Mapping[str, Any]) -> str:
    """Return the score of a row as text."""
    return Number.of(row["score"]).text()


def _readers(predictor: Predictor, images: Images) -> list[Reader]:
    steps, root = predictor.preprocess, images.manifest.root
    return [partial(load_for, steps, root, row) for row in images.rows]


def _evaluated(predictor: Predictor, point: OperatingPoint, runner: Runner, images: Images) -> Evaluation:
    request = Request(point, runner.batched.backend)
    return evaluate(predictor, images.rows, images.manifest.root, request)


def _scored(
    predictor: Predictor, point: OperatingPoint, evaluation: Evaluation, images: Images
) -> tuple[str, dict[str, Any]]:
    """Return the name of the score, and the row of a point without its speed."""
    score = headline(evaluation)
    encoder = predictor.at(point).encoder
    return score.name, {
        "point": str(point),
        "score": score.to_dict(),
        "pictures": len(images.rows),
        "called": images.called,
        "gmacs": round(count_macs(encoder, point.size, point.keep, point.merge) / 1e9, 4),
        # The whole network has its own calibration in the model file.
        "task": {} if point == predictor.points[-1] else calibration(predictor.task, evaluation),
    }


def _right(row: Mapping[str, Any], evaluation: Evaluation) -> dict[str, NDArray[Any]]:
    """Return by the name of the point which images are right, if the score is their mean."""
    right = evaluation.per_image().get("right")
    if right is None or not np.isclose(float(np.mean(right)), row["score"]["value"]):
        return {}
    return {row["point"]: np.asarray(right, np.float64)}


def _lost(whole: NDArray[Any] | None, point: NDArray[Any] | None, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what a point loses against the whole network on the same images, with its paired interval."""
    if whole is None or point is None or whole is point:
        return {}
    apart = whole - point
    counts = resampled([group_key(row) for row in rows])
    samples = counts @ apart / counts.sum(1)
    return {"lost": bootstrap(float(apart.mean()), samples, len(rows)).to_dict()}


def calibration(task: Task[Any, Any], evaluation: Evaluation) -> dict[str, Any]:
    """Return the settings, and the limits of an abstention, that fit these images."""
    settings = dict(evaluation.calibrate())
    if isinstance(task, Abstaining) and task.abstention is not None:
        return {"settings": settings, "abstention": dict(task.limits(evaluation, settings))}
    return {"settings": settings}
