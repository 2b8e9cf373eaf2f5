"""Asks a model about the rows of a manifest: the same preprocessing and decoding that users' pictures take."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vitrail.core.errors import DataError
from vitrail.data.doctor import workers
from vitrail.data.manifest import Manifest, Row
from vitrail.data.source import load
from vitrail.infer.predictor import Predictor, Ready, Request
from vitrail.layers.elastic import Point
from vitrail.layers.head import Output
from vitrail.runs.run_network import ASK

BATCH = 64


class Asked(NamedTuple):
    """What a model said of pictures whose truth is known: raw outputs on the CPU, and predictions."""

    rows: tuple[Row, ...]
    output: Output
    predictions: tuple[Any, ...]

    def targets(self, predictor: Predictor) -> list[Any]:
        """Return the truth as the task puts it."""
        return [predictor.task.target(row.label) for row in self.rows]


def ask(predictor: Predictor, rows: Sequence[Row], root: Path, point: Point | None = None) -> Asked:
    """Ask about rows, in order; pictures are read on all cores.

    Raises:
        DataError: a picture can no longer be read, or there is none.
    """
    if not rows:
        raise DataError("There is no picture to score. Add pictures to the split, or name another one.")

    steps, request = predictor.preprocess, Request(point or predictor.point)

    def ready(row: Row) -> Ready:
        image = load(root, row.path, steps.channels, raw=steps.raw).image
        return predictor.ready(image, request.point)

    outputs: list[Output] = []
    predictions: list[Any] = []
    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(rows), BATCH):
            part = list(pool.map(ready, rows[start : start + BATCH]))
            output = predictor.outputs(part, request)
            outputs.append(output)
            predictions += predictor.task.decode(output, [one.geometry for one in part], ASK)
    whole = {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}
    return Asked(tuple(rows), whole, tuple(predictions))


def rows_of(manifest: Manifest, split: str) -> list[Row]:
    """Return the kept rows of a split; raises a DataError where it is empty."""
    rows = manifest.rows(split)
    if not rows:
        raise DataError(
            f"The split {split!r} holds no pictures, so nothing can be scored. Add pictures to it."
        )
    return rows
