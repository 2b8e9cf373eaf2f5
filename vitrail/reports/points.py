"""The operating points of a run: measured on validation pictures after the training, and again when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitrail.core.errors import RunError
from vitrail.data.manifest import TEST, VAL, Manifest
from vitrail.evaluate.ask import rows_of
from vitrail.evaluate.fresh import fresh, learnt_by, present
from vitrail.evaluate.points import measure_points
from vitrail.infer.elastic import asked_for
from vitrail.infer.predictor import Predictor
from vitrail.runs.folder import Run, open_run
from vitrail.runs.model_file import write_model
from vitrail.tasks.classify.task import Classify
from vitrail.tasks.multilabel.task import MultiLabel


def pointed(run: Run, manifest: Manifest, predictor: Predictor) -> Predictor:
    """Return the predictor of a model file that holds what was measured of its points; one point needs no table.

    A file that holds it already stays as it is.
    """
    if len(predictor.points) == 1 or predictor.header.points:
        return predictor
    rows = measure_points(predictor, predictor.points, manifest, rows_of(manifest, VAL))
    header = predictor.header.model_copy(update={"points": rows})
    write_model(run.model_path, predictor.network.to("cpu"), header)
    return Predictor(run.folder)


def evaluate_points(
    model: str, wanted: str, data: str = "", *, layout: str = "auto", device: str = "auto"
) -> dict[str, Any]:
    """Measure points of a model (`all`, or a list) on its run's own test pictures, or on new ones.

    Raises:
        SettingError: a point that the model was not trained for.
        RunError: `model` is a file, which knows no pictures, or predicts no classes.
    """
    predictor = Predictor(model, device)
    if not isinstance(predictor.task, Classify | MultiLabel):
        raise RunError(f"{model} predicts no classes ({predictor.task.name}), and has one operating point.")
    points = asked_for(wanted, predictor.points)
    if data:
        new = fresh(data, predictor.task, learnt_by(model), layout=layout)
        found = measure_points(predictor, points, new.manifest, new.rows)
        return {"model": predictor.header.name, "points": found, "notes": list(new.notes)}
    if not Path(model).is_dir():
        raise RunError(
            f"{model} alone knows no test pictures. Name some: vitrail eval {model} FOLDER --points {wanted}"
        )
    run = open_run(model)
    manifest = present(run.manifest(run.root()))
    found = measure_points(predictor, points, manifest, rows_of(manifest, TEST))
    return {"model": predictor.header.name, "points": found, "notes": []}
