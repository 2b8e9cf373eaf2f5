"""After the weights: temperature and thresholds, learned from validation answers, go into the model file."""

from __future__ import annotations

from vitrail.data.manifest import VAL, Manifest
from vitrail.evaluate.collect_answers import evaluate, rows_of
from vitrail.infer.predictor import Predictor
from vitrail.runs.model_file import write_model
from vitrail.runs.network import task_of
from vitrail.runs.proof import answer
from vitrail.runs.run import Run


def calibrate_on_validation(run: Run, manifest: Manifest) -> Predictor:
    """Open the run's model with the settings that its task draws from the validation split.

    The proof is computed again with them. A file that holds them already is left as it is, so that a finished
    run which is resumed stays the same, byte by byte.
    """
    predictor = Predictor(run.folder)
    learnt = evaluate(predictor, rows_of(manifest, VAL), manifest.root).calibrate()
    header = predictor.header
    # The settings are read by the task before they are compared: a file's lists are the task's tuples.
    task = task_of(header, learnt)
    if not learnt or task.settings == predictor.task.settings:
        return predictor
    network = predictor.network.to("cpu")
    header = header.model_copy(
        update={
            "task": {**header.task, "settings": task.settings.model_dump()},
            "proof": answer(network, task, predictor.preprocess),
        }
    )
    write_model(run.model_path, network, header)
    return Predictor(run.folder)
