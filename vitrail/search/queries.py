"""Queries: texts and images as vectors, alone or averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vitrail.core.errors import UsageError
from vitrail.core.text import one_line
from vitrail.data.open_image import content_hash
from vitrail.data.rasters.whole_file import decode_for
from vitrail.infer.backends import Backend
from vitrail.infer.inputs import expand
from vitrail.layers.mahalanobis import LAST
from vitrail.search.image_index import Floats, Index, unit
from vitrail.search.ranking import Query
from vitrail.search.search_model import SearchModel

LONGEST = 60
"""Characters of a text in the name of a query."""


class Asked(NamedTuple):
    """What is searched, and notes about what cannot be read of it."""

    queries: tuple[Query, ...]
    notes: tuple[str, ...]


class Like(NamedTuple):
    """An image to compare with: its name, its vector (d,) of length 1, and the hash of its content."""

    name: str
    vector: Floats
    hash: str


def refuse_empty(texts: Sequence[str], likes: Sequence[str]) -> None:
    """Raise a UsageError for a text without words, or if nothing is searched."""
    if not texts and not likes:
        raise UsageError(
            'Say what to search: vitrail search photos/ "a red bus in the rain", or an image like those that are '
            "wanted: vitrail search photos/ --like bus.jpg"
        )
    if any(not text.strip() for text in texts):
        raise UsageError('A text to search is empty. Write what the images show: "a red bus in the rain"')


def asked_for(
    texts: Sequence[str], likes: Sequence[str], model: SearchModel, index: Index, plan: Backend
) -> Asked:
    """Return the queries: one for each text, averaged with all images if there are any; else one for each image.

    Raises:
        DataError: an image cannot be read.
    """
    images = [one for name in likes for one in _images(name, model, index, plan)]
    if not texts:
        return Asked(tuple(Query(one.name, "image", one.vector, (one.hash,)) for one in images), ())
    assert model.words is not None, "a model for words"
    notes = [note for text in texts for note in model.words.notes(text)]
    vectors = model.words.vectors(texts)
    if not images:
        return Asked(
            tuple(_text(*pair) for pair in zip(texts, vectors, strict=True)), tuple(dict.fromkeys(notes))
        )
    middle = unit(np.mean([one.vector for one in images], axis=0)[None])[0]
    both = unit((vectors + middle) / 2)
    named = " + ".join(one.name for one in images)
    hashes = tuple(one.hash for one in images)
    queries = [
        Query(f"{shown(text)} + {named}", "both", vector, hashes)
        for text, vector in zip(texts, both, strict=True)
    ]
    return Asked(tuple(queries), tuple(dict.fromkeys(notes)))


def _text(text: str, vector: Floats) -> Query:
    return Query(shown(text), "text", vector)


def shown(text: str) -> str:
    """Return a text on one line, shortened."""
    line = one_line(text.strip())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _images(name: str, model: SearchModel, index: Index, plan: Backend) -> list[Like]:
    """Return the images of a name: a file, or the files of a folder, a pattern or an archive."""
    known: dict[str, int] = {row.hash: place for place, row in enumerate(index.rows)}
    found = []
    for source in expand([name]):
        opened = source.open()
        data = opened if isinstance(opened, bytes) else opened.read_bytes()
        content = content_hash(data, "")
        if content in known:
            vector = index.vectors[known[content]]
        else:
            image = decode_for(model.frozen.preprocess, opened, source.called)
            vector = unit(model.frozen.of_images([image], plan)[LAST])[0]
        found.append(Like(source.name, vector, content))
    return found
