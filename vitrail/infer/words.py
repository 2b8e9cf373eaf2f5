"""Texts as vectors, in the space of a model that was trained on images and captions."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from vitrail.core.errors import SettingError
from vitrail.infer.predictor import Predictor
from vitrail.tasks.retrieve.prediction import Vectors
from vitrail.tasks.retrieve.task import Retrieve


def text_vectors(predictor: Predictor, texts: Sequence[str]) -> Vectors:
    """Return the unit vector of each text, float32 (n, e); those of images are the output `image` of the predictor.

    Raises:
        SettingError: the model was not trained on captions.
        RunError: it is an exported graph, which has no text tower.
    """
    return _retrieve(predictor).vectors(list(texts))


def choosing(predictor: Predictor, texts: Sequence[str]) -> Predictor:
    """Return this predictor with predictions that are chosen among these texts; both share their networks.

    Raises:
        SettingError: there is no text, or the model was not trained on captions.
        RunError: it is an exported graph, which has no text tower.
    """
    if not texts:
        raise SettingError("Name at least one text to choose from.")
    task = copy(_retrieve(predictor))
    task.choose_texts(list(texts))
    return predictor.with_task(task)


def _retrieve(predictor: Predictor) -> Retrieve:
    if not isinstance(predictor.task, Retrieve):
        raise SettingError(
            f"{predictor.path} was trained for {predictor.task.name}, which reads no words. Name a model of the task "
            "retrieve, trained on images with captions: vitrail train pairs.csv --task retrieve."
        )
    return predictor.task
