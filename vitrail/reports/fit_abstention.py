"""Store "none of these" and label sets in the model file of a run, for tasks that support them."""

from __future__ import annotations

from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.manifest import TRAIN, VAL, Manifest
from vitrail.evaluate.abstention import Fitted, fit_abstention, of_run
from vitrail.infer.predictor import Predictor
from vitrail.runs.model_file import write_model
from vitrail.runs.network import task_of, with_reader
from vitrail.runs.proof import answer
from vitrail.runs.run import Run
from vitrail.tasks.abstention import Abstaining, Abstention


def with_abstention(run: Run, manifest: Manifest, predictor: Predictor) -> Predictor:
    """Fit "none of these" and label sets on training and validation images, and open the model file with them.

    A file that already has them is not changed. A model of several operating points has none: its features depend on
    the point.
    """
    train, held = manifest.rows(TRAIN), manifest.rows(VAL)
    task = predictor.task
    if (
        not isinstance(task, Abstaining)
        or task.abstention is not None
        or len(predictor.points) > 1
        or not train
    ):
        return predictor
    recipe = run.recipe()
    try:
        evidence = of_run(predictor, train, held, manifest.root, recipe.data.source)
        fitted = fit_abstention(evidence._replace(learned=recipe.training.tune != "head"))
    except DataError as error:  # an image of the training is gone, which must not stop the report
        fitted = Fitted(Abstention(reason=str(error).rstrip(".")), None)
    store(run.model_path, predictor, fitted)
    return Predictor(run.folder)


def store(path: Path, predictor: Predictor, fitted: Fitted) -> None:
    """Write a model file again, with what was fitted, and with a new proof."""
    stored = {**predictor.header.task, "abstention": fitted.abstention.model_dump()}
    header = predictor.header.model_copy(update={"task": stored})
    task = task_of(header, {})
    network = with_reader(predictor.network.to("cpu"), tuple(task.outputs), fitted.novelty)
    proof = answer(network, task, predictor.preprocess)
    write_model(path, network, header.model_copy(update={"proof": proof}))
