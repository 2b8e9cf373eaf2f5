"""Operating points of a run: measured on validation images after training, and again on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.errors import RunError
from vitrail.core.text import command
from vitrail.data.manifest import TEST, VAL, Manifest
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.evaluate.collect_answers import rows_of
from vitrail.evaluate.new_data import open_new_data, own_tests, training_rows
from vitrail.evaluate.operating_points import MeasuredPoints, measure_points
from vitrail.infer.operating_points import asked_for
from vitrail.infer.predictor import Predictor
from vitrail.runs.model_file import write_model
from vitrail.runs.run import Run, open_run


def with_operating_points(run: Run, manifest: Manifest, predictor: Predictor) -> Predictor:
    """Measure the operating points of a run and store them in its model file; one point needs no table.

    A file that already contains measurements is not changed.
    """
    if len(predictor.points) == 1 or predictor.header.points:
        return predictor
    rows = measure_points(predictor, predictor.points, manifest, rows_of(manifest, VAL)).rows
    header = predictor.header.model_copy(update={"points": rows})
    write_model(run.model_path, predictor.network.to("cpu"), header)
    return Predictor(run.folder)


class PointsTold(NamedTuple):
    """Measured points as plain data, and the name of their score."""

    report: dict[str, Any]
    score: str


def evaluate_points(
    model: str, wanted: str, data: str = "", *, read: LayoutOptions = DEFAULTS, device: str = "auto"
) -> PointsTold:
    """Measure operating points of a model (`all`, or a list) on its run's own test images, or on new ones.

    Raises:
        SettingError: a point that the model was not trained for.
        RunError: `model` is a file, which has no images.
    """
    predictor = Predictor(model, device)
    points = asked_for(wanted, predictor.points)
    if data:
        new = open_new_data(data, predictor.task, training_rows(model), read=read)
        measured = measure_points(predictor, points, new.manifest, new.rows)
        return _report(predictor, measured, new.notes)
    if not Path(model).is_dir():
        raise RunError(
            f"{model} is a model file without test images. Name some: "
            f"{command('eval', model, 'FOLDER', '--points', wanted)}"
        )
    run = open_run(model)
    own = own_tests(run)
    measured = measure_points(predictor, points, own.scored, rows_of(own.scored, TEST))
    return _report(predictor, measured, own.notes)


def _report(predictor: Predictor, measured: MeasuredPoints, notes: Sequence[str]) -> PointsTold:
    return PointsTold(
        {"model": predictor.header.name, "points": measured.rows, "notes": list(notes)}, measured.score
    )
