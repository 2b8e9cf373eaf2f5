"""Measure the operating points of a model: score, cost in GMACs, and speed on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.data.batch import images_only
from vitrail.data.manifest import Manifest, Row
from vitrail.evaluate.collect_answers import evaluate
from vitrail.infer.operating_points import beaten
from vitrail.infer.predictor import Predictor, Request
from vitrail.infer.timing import in_turn
from vitrail.layers.elastic import OperatingPoint, at_size
from vitrail.models.factory import count_macs
from vitrail.tasks.result import headline

BATCH = 16
"""Batch size of the speed measurement."""

ROUNDS = 5


class MeasuredPoints(NamedTuple):
    """The name of the score, and one row per operating point."""

    score: str
    rows: list[dict[str, Any]]


def measure_points(
    predictor: Predictor, wanted: Sequence[OperatingPoint], manifest: Manifest, rows: Sequence[Row]
) -> MeasuredPoints:
    """Return one row per operating point: score with interval, GMACs of the encoder, images/s of the network.

    The speeds are medians over rounds in which all points run in turn, in float32 with batches of 16.
    """
    speeds = _speeds(predictor, wanted)
    measured, name = [], ""
    for point in wanted:
        score = headline(evaluate(predictor, rows, manifest.root, Request(point)))
        name = score.name
        macs = count_macs(predictor.network.encoder, point.size, point.keep)
        measured.append(
            {
                "point": str(point),
                "score": score.to_dict(),
                "pictures": len(rows),
                "gmacs": round(macs / 1e9, 4),
                "images_per_second": round(speeds[point], 1),
            }
        )
    table = [row | {"beaten_by": by} for row, by in zip(measured, beaten(measured), strict=True)]
    return MeasuredPoints(name, table)


def _speeds(predictor: Predictor, wanted: Sequence[OperatingPoint]) -> dict[OperatingPoint, float]:
    height, width = predictor.preprocess.size
    images = torch.randn(BATCH, predictor.preprocess.channels, height, width)
    runs = {str(point): _forward(predictor, point, at_size(images, point.size)) for point in wanted}
    times = in_turn(runs, ROUNDS, warmup=1)
    return {point: BATCH / median(times[str(point)]) for point in wanted}


def _forward(predictor: Predictor, point: OperatingPoint, images: Tensor) -> Callable[[], object]:
    batch, request = images_only(images), Request(point)
    return lambda: predictor.run(batch, request)
