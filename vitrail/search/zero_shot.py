"""Classes that are only named: texts made by templates, and the class whose text lies nearest to an image.

The vectors of the texts of a class are averaged (Radford et al. 2021, arXiv:2103.00020, §3.1.4).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.environment import cache_dir
from vitrail.core.errors import DataError, UsageError
from vitrail.data.doctor import look_all
from vitrail.data.image_facts import Memory
from vitrail.data.labels import count
from vitrail.data.layouts import Entry
from vitrail.data.manifest import Row
from vitrail.data.rasters.whole_file import decode_for
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Answer
from vitrail.layers.mahalanobis import LAST
from vitrail.metrics.intervals import wilson
from vitrail.search.image_index import Contents, Floats, Progress, index_of, unit
from vitrail.search.none_limit import ERROR, LEAST, NoneLimit, fit_limit
from vitrail.search.search_model import SearchModel, Words
from vitrail.tasks.classify.prediction import Names

TEMPLATES = (
    "a photo of a {}",
    "a photo of the {}",
    "a photo of {}",
    "a picture of a {}",
    "an image of {}",
    "a close view of a {}",
    "a {} seen from afar",
    "a dark photo of a {}",
    "a bright photo of a {}",
    "a blurred photo of a {}",
    "a small {} in a photo",
    "a part of a {}",
)
"""The texts of a class for a model that has read captions of the web."""

PLAIN = ("{}",)
"""The text of a class for a model whose captions are not known: its name alone."""

NONE = frozenset(("something else", "none of these", "none of the above", "nothing of these"))
"""Names that stand for everything else; they are no class with a text."""

NEUTRAL = (
    "a photo", "a picture", "an image", "something", "a thing", "a place", "a scene", "a view", "an object",
    "a pattern", "a detail", "a background",
)  # fmt: skip
"""Texts that say nothing of an image: a single class is compared with them."""

COLUMNS = ("label", "probability", "cosine", "none_of_these")


class Wish(NamedTuple):
    """The classes by name, whether something else was named, and the templates; none: those of the model."""

    names: tuple[str, ...]
    other: str
    templates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named(Names):
    """The named classes in order of probability, the cosine of the first, and whether the image is of none of them.

    `none_of_these` is None if nothing is known of this; `other` is the name that the user gave to everything else.
    """

    cosine: float = 0.0
    none_of_these: bool | None = None
    other: str = ""

    @property
    def label(self) -> str:
        """The predicted class, or the user's name of everything else."""
        return self.other if self.none_of_these and self.other else self.labels[0]

    def _plain(self) -> dict[str, Any]:
        plain = {
            "label": self.label,
            "probability": round(self.probabilities[0], 6),
            "cosine": round(self.cosine, 6),
        }
        return plain | {"none_of_these": self.none_of_these, "nearest": self.labels[0]}

    def rows(self) -> list[dict[str, Any]]:
        """Return the row of a table of predictions."""
        return [self._plain()]

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction with the five most probable classes."""
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top()]
        return {**self._plain(), "top": top}

    def __str__(self) -> str:
        text = f"{self.labels[0]} {self.probabilities[0]:.1%}"
        return f"{self.other or 'none of these'}, nearest to {text}" if self.none_of_these else text


class Outcome(NamedTuple):
    """One answer per image, in order, and sentences about them."""

    answers: tuple[Answer, ...]
    notes: tuple[str, ...]


def wish_of(names: str, templates: Sequence[str]) -> Wish:
    """Read the classes, separated by commas, and check the templates.

    Raises:
        UsageError: there are too few classes, or a template has no place for one.
    """
    found = dict.fromkeys(" ".join(name.split()) for name in names.split(","))
    other = next((name for name in found if name.casefold() in NONE), "")
    classes = tuple(name for name in found if name and name.casefold() not in NONE)
    if not classes or (len(classes) == 1 and not other):
        raise UsageError(
            'Name at least two classes, or one and everything else: --zero-shot "cat,dog" or "cat,something else"'
        )
    bad = next((one for one in templates if "{}" not in one), None)
    if bad is not None:
        raise UsageError(
            f"The template {bad!r} has no place for a class: --template 'a satellite photo of {{}}'"
        )
    return Wish(classes, other, tuple(templates))


def class_vectors(words: Words, wish: Wish) -> tuple[Floats, list[str]]:
    """Return one vector of length 1 per class, (k, d), the mean of its texts, and notes about them."""
    templates = wish.templates or (TEMPLATES if words.vocabulary.of_clip else PLAIN)
    texts = [one.replace("{}", name) for name in wish.names for one in templates]
    notes = list(dict.fromkeys(note for name in wish.names for note in words.notes(name)))
    if not wish.templates and templates is PLAIN:
        notes.append(
            "The classes are taken as they are written: the model has read captions of its own. If these have a form, "
            "state it: --template 'a drawing of {}'"
        )
    vectors = unit(words.vectors(texts)).reshape(len(wish.names), len(templates), -1)
    return unit(vectors.mean(1)), notes


def zero_shot(
    model: SearchModel, sources: Sequence[Source], wish: Wish, progress: Progress | None = None
) -> Outcome:
    """Return the class of each image whose text is nearest; an image that cannot be read gets an error."""
    assert model.words is not None, "a model for words"
    classes, notes = class_vectors(model.words, wish)
    vectors, errors = _vectors(model, sources, progress)
    places = sorted(vectors)
    if not places:
        return Outcome(
            tuple(Answer(one.name, error=errors[i]) for i, one in enumerate(sources)), tuple(notes)
        )
    images = np.stack([vectors[i] for i in places])
    cosines = images @ classes.T
    neutral = images @ unit(model.words.vectors(NEUTRAL)).T
    different = len(np.unique(images, axis=0))
    limit = fit_limit(cosines, neutral) if different >= LEAST else None
    if limit is None and len(wish.names) == 1:
        raise UsageError(
            f"To tell {wish.names[0]} from everything else takes {LEAST} different images, and not {different}. Name "
            'another class to compare with: --zero-shot "cat,dog"'
        )
    named = _named(cosines, model.words.scale, wish, limit)
    found = dict(zip(places, named, strict=True))
    answers = tuple(
        Answer(one.name, found[i]) if i in found else Answer(one.name, error=errors[i])
        for i, one in enumerate(sources)
    )
    return Outcome(answers, (*notes, *_remarks(limit, different)))


def _named(cosines: Floats, scale: float, wish: Wish, limit: NoneLimit | None) -> list[Named]:
    """Return the predictions from the cosines of images and classes: (n, k)."""
    logits = scale * cosines.astype(np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    order = np.argsort(-cosines, axis=1, kind="stable")
    made = []
    for i, row in enumerate(order.tolist()):
        none = None if limit is None or not limit.told[i] else bool(limit.none[i])
        labels = tuple(wish.names[j] for j in row)
        made.append(
            Named(labels, tuple(shares[i][row].tolist()), float(cosines[i, row[0]]), none, wish.other)
        )
    return made


def _remarks(limit: NoneLimit | None, images: int) -> list[str]:
    """Return what is known of "none of these", and how well."""
    if limit is None:
        return [
            f"Nothing is said of none of these: a limit takes {LEAST} different images, and not {images}. Every "
            "image gets one of the classes, whatever it shows, and its probability compares these classes only."
        ]
    said = [
        f"{count(int(limit.none.sum()), 'image')} of {len(limit.none):,} fit none of the classes better than images of "
        f"other things do. The limit aims at {round(100 * ERROR)} in 100 images of something else that still get a "
        "class; things that are like a class get it more often, and some images of a class are missed."
    ]
    if limit.measured is not None:
        share = wilson(limit.measured.wrong, limit.measured.tested)
        said.append(
            f"Measured here, with each class left out in turn: {share} of {limit.measured.tested:,} images whose class "
            "was left out got another one."
        )
    untold = int((~limit.told).sum())
    if untold:
        said.append(
            f"Of {count(untold, 'image')} nothing is said: too many images are nearest to the same class to know what "
            "else looks like."
        )
    return said


def _vectors(
    model: SearchModel, sources: Sequence[Source], progress: Progress | None
) -> tuple[dict[int, NDArray[Any]], dict[int, str]]:
    """Return the vectors of images by place, and why the others have none; those of files are cached by content."""
    errors = {i: one.trouble for i, one in enumerate(sources) if one.trouble}
    piped = [i for i, one in enumerate(sources) if one.path is None and i not in errors]
    files = [i for i, one in enumerate(sources) if one.path is not None and i not in errors]
    rows, bad = _rows({i: sources[i] for i in files}, progress)
    errors |= bad
    vectors: dict[int, NDArray[Any]] = {}
    if rows:
        index = index_of(Contents(Path(), tuple(rows), (), ()), model.frozen, progress)
        vectors |= {int(row.id): vector for row, vector in zip(index.rows, index.vectors, strict=True)}
        errors |= {int(one.id): one.why for one in index.broken}
    for i in piped:
        try:
            image = decode_for(model.frozen.preprocess, sources[i].open(), sources[i].called)
        except DataError as error:
            errors[i] = str(error)
            continue
        vectors[i] = unit(model.frozen.of_images([image], model.frozen.usual)[LAST])[0]
    return vectors, errors


def _rows(sources: Mapping[int, Source], progress: Progress | None) -> tuple[list[Row], dict[int, str]]:
    """Return the readable files as rows, called by their place, and why the others cannot be read."""
    entries = [Entry(str(i), _path(one), "") for i, one in sources.items()]
    memory = Memory(cache_dir() / "check.sqlite")

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("reading images", done, total)

    try:
        facts = list(look_all(entries, Path(), memory, told))
    finally:
        memory.close()
    pairs = list(zip(entries, facts, strict=True))
    errors = {
        int(one.id): seen.error.replace(one.path, sources[int(one.id)].name)
        for one, seen in pairs
        if seen.error
    }
    return [Row(one.id, one.path, hash=seen.hash) for one, seen in pairs if not seen.error], errors


def _path(source: Source) -> str:
    inside = f"!{source.member}" if source.member else ""
    return f"{os.path.abspath(source.path or '')}{inside}"
