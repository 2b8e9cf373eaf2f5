"""The network of a search: any encoder for similar images, one with a text tower for words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrail.core.catalog import family_of
from vitrail.core.environment import expanded
from vitrail.core.errors import SettingError, WeightsError
from vitrail.core.text import command
from vitrail.data.vocabulary import Vocabulary
from vitrail.infer.predictor import Predictor, refuse_exported
from vitrail.infer.words import text_vectors
from vitrail.layers.contrastive_head import ContrastiveHead, ImageHalf
from vitrail.runs.device import device_for
from vitrail.runs.model_source import is_ours
from vitrail.search.image_index import Floats
from vitrail.tasks.texts import ReadsTexts
from vitrail.training.feature_cache import Frozen
from vitrail.training.network_choice import DRAFT_SIZE
from vitrail.weights.clip_files import RETRIEVE
from vitrail.weights.preprocessing import deviations, published_preprocess
from vitrail.weights.resolve import find_weights

WORDS_MODEL = "clip_b32"
"""The published network that reads words if none is named."""

IMAGES_MODEL = "dinov2_s14"
"""The published network that compares images if none is named."""


@dataclass(frozen=True)
class Words:
    """What reads texts: the model whose text tower gives their vectors, its head, and its vocabulary."""

    predictor: Predictor
    head: ContrastiveHead
    vocabulary: Vocabulary

    def vectors(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of texts, of length 1, in the space of the images: (n, d)."""
        return np.asarray(text_vectors(self.predictor, list(texts)), np.float32)

    def notes(self, text: str) -> list[str]:
        """Return sentences about what the text tower cannot read of a text."""
        notes = [self.vocabulary.warning(text)]
        if self.vocabulary.cut(text):
            words = len(text.split())
            long = f"The text of {words:,} words" if words > 1 else "The text"
            notes.append(
                f"{long} is longer than the {self.vocabulary.context} tokens that the text tower reads: its end is cut "
                "off."
            )
        return [one for one in notes if one]

    @property
    def scale(self) -> float:
        """The factor of the cosines before the softmax over texts."""
        return float(self.head.factor())


@dataclass(frozen=True)
class SearchModel:
    """A network that gives vectors of images, and what reads texts if it has a text tower."""

    name: str
    frozen: Frozen
    words: Words | None = None
    notes: tuple[str, ...] = ()


def open_model(model: str | None, device: str = "auto", words: bool = False) -> SearchModel:
    """Open the network of a search: a run, a model file, weights, or a name; None: the default one.

    Raises:
        SettingError: words are asked for and the network has no text tower.
        RunError, WeightsError: it cannot be opened, or is not here and cannot be fetched.
    """
    if words:
        return _with_words(model, device)
    opened = _ours(model, device) if model is not None else None
    if opened is not None:
        return opened
    return _published(model or IMAGES_MODEL, device)


def _published(model: str, device: str) -> SearchModel:
    """Open published weights at the size at which drafts are made of them: at 518 px DINOv2 takes ten times as long."""
    named = family_of(model) and not expanded(model).exists()
    found = find_weights("auto", model) if named else find_weights(model)
    if found.task == RETRIEVE and found.head and (opened := _ours(_words_file(model), device)) is not None:
        return opened
    steps = published_preprocess(found)
    if max(steps.size) > DRAFT_SIZE:
        steps = published_preprocess(found, (DRAFT_SIZE, DRAFT_SIZE))
    frozen = Frozen(found.build(image=steps.size), steps, device_for(device))
    notes = tuple(f"{line[0].upper()}{line[1:]}." for line in deviations(found))
    return SearchModel(found.name, frozen, notes=notes)


def _with_words(model: str | None, device: str) -> SearchModel:
    opened = _ours(_words_file(model), device)
    if opened is None or opened.words is None:
        raise SettingError(
            f"{model} has no text tower, so it cannot be asked in words. Give an image to compare with "
            f"({command('search', 'FOLDER', '--like', 'IMAGE', '--model', model)}), or a model that has learnt from "
            "captions."
        )
    return opened


def _words_file(model: str | None) -> str:
    """Return the path of a model, made of published weights if it names some."""
    if model is not None and is_ours(expanded(model)):
        return model
    from vitrail.runs.published import published_model

    try:
        return str(published_model(model or WORDS_MODEL).path)
    except WeightsError as error:
        if model is not None:
            raise WeightsError(
                f"{model} cannot be asked in words, which takes a network that has learnt from captions: {error}"
            ) from error
        raise WeightsError(
            f"To search by words a network is needed that has learnt from captions, and the default one cannot be "
            f"had: {error} With captions of your own: {command('train', 'pairs.csv', '--task', 'retrieve')}, then "
            "--model runs/pairs. Without words: --like IMAGE."
        ) from error


def _ours(model: str, device: str) -> SearchModel | None:
    """Return a run or a model file as the network of a search; None for anything else."""
    path = expanded(model)
    refuse_exported(path)
    if not is_ours(path):
        return None
    predictor = Predictor(path, device)
    name, encoder = predictor.header.name, predictor.network.encoder
    head, task = predictor.network.head, predictor.task
    if not isinstance(task, ReadsTexts) or not isinstance(head, ContrastiveHead) or task.vocabulary is None:
        return SearchModel(name, Frozen(encoder, predictor.preprocess, predictor.device))
    frozen = Frozen(encoder, predictor.preprocess, predictor.device, head=ImageHalf(head))
    return SearchModel(name, frozen, Words(predictor, head, task.vocabulary))
