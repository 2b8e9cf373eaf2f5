"""Texts as vectors, in the space of a model that was trained on images and captions."""

from __future__ import annotations

from collections.abc import Sequence

from vitrail.core.errors import SettingError
from vitrail.infer.predictor import Predictor
from vitrail.tasks.retrieve.prediction import Vectors
from vitrail.tasks.texts import ReadsTexts


def text_vectors(predictor: Predictor, texts: Sequence[str]) -> Vectors:
    """Return the unit vector of each text, float32 (n, e); those of images are the output `image` of the predictor.

    Raises:
        SettingError: the model was not trained on captions.
        RunError: it is an exported graph, which has no text tower.
    """
    return _reading(predictor).vectors(list(texts))


def _reading(predictor: Predictor) -> ReadsTexts:
    if not isinstance(predictor.task, ReadsTexts):
        raise SettingError(
            f"{predictor.path} was trained for {predictor.task.name}, which reads no words. Name a model of the task "
            "retrieve, trained on images with captions: vitrail train pairs.csv --task retrieve."
        )
    return predictor.task
