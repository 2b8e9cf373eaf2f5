"""Calibrate a trained model: fit temperature and thresholds on the validation split, store them in the file."""

from __future__ import annotations

from vitrail.data.manifest import VAL, Manifest
from vitrail.evaluate.collect_answers import evaluate, rows_of
from vitrail.infer.predictor import Predictor
from vitrail.runs.model_file import write_model
from vitrail.runs.network import task_of, with_reader
from vitrail.runs.proof import answer
from vitrail.runs.run import Run


def calibrate_on_validation(run: Run, manifest: Manifest) -> Predictor:
    """Calibrate the run's model on the validation split, and open it.

    The proof is computed again with the new settings. A file that is already calibrated is not written again, so that
    resuming a finished run does not change a byte.
    """
    predictor = Predictor(run.folder)
    fitted = evaluate(predictor, rows_of(manifest, VAL), manifest.root).calibrate()
    header = predictor.header
    # Compare after the task has parsed the settings: lists in the file are tuples in the task.
    task = task_of(header, fitted)
    if not fitted or task.settings == predictor.task.settings:
        return predictor
    # Label sets depend on the temperature: they are fitted again (`with_abstention`).
    kept = {name: value for name, value in header.task.items() if name != "abstention"}
    header = header.model_copy(update={"task": {**kept, "settings": task.settings.model_dump()}})
    task = task_of(header, {})
    network = with_reader(predictor.network.to("cpu"), tuple(task.outputs), None)
    header = header.model_copy(update={"proof": answer(network, task, predictor.preprocess)})
    write_model(run.model_path, network, header)
    return Predictor(run.folder)
