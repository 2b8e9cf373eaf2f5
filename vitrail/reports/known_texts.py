"""Store the captions among which a model of the task retrieve chooses its predictions, in its model file."""

from __future__ import annotations

from copy import copy
from pathlib import Path

from vitrail.data.manifest import TRAIN, Manifest
from vitrail.infer.predictor import Predictor
from vitrail.runs.model_file import write_model
from vitrail.runs.network import stored_of
from vitrail.runs.run import Run
from vitrail.tasks.retrieve.text_side import most_common
from vitrail.tasks.texts import ReadsTexts

MOST = 1000
"""Largest number of captions in a model file."""


def with_known_texts(run: Run, manifest: Manifest, predictor: Predictor) -> Predictor:
    """Store the most frequent training captions with their vectors, and open the model file with them.

    Models of other tasks, and files that have them already, are not changed.
    """
    task = predictor.task
    if not isinstance(task, ReadsTexts) or task.known is not None:
        return predictor
    captions = [caption for row in manifest.rows(TRAIN) for caption in task.read(row, Path())]
    knowing = copy(task)
    knowing.choose_texts(most_common(captions, MOST))
    stored = {**predictor.header.task, **stored_of(knowing)}
    header = predictor.header.model_copy(update={"task": stored})
    write_model(run.model_path, predictor.network.to("cpu"), header)
    return Predictor(run.folder)
