"""The images that are most similar to a query: one matrix product, and a limit below which a match says nothing.

Some image is always the best match, whatever the query. So each match is compared with what is reached without any
relation: by texts about things that no photograph shows, or by images of the folder itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.search.image_index import Floats, Index

Kind = Literal["text", "image", "both"]

UNRELATED = (
    "justice", "a rumour", "grammar", "Tuesday", "inflation", "a percentage", "the past tense", "patience", "a debt",
    "an opinion", "silence", "the number eleven", "a promise", "bureaucracy", "probability", "nostalgia",
    "an alibi", "irony", "a synonym", "the year before last", "a loan", "loyalty", "a theorem", "gravity",
    "an apology", "hearsay", "democracy", "a hypothesis", "the square root", "envy", "a deadline", "honesty",
)  # fmt: skip
"""Texts about things that no photograph shows: what the best of them reach in a folder, any text may reach."""

SAMPLE = 64
"""Images of the folder whose own nearest neighbours are looked at."""

FEWEST = 20
"""Smallest number of different images for a limit of similar images."""

SHARE = 0.05
"""Share of unrelated texts whose best match is above the limit, and of images whose nearest neighbour is below it."""

ALIKE = "the same image"


class Query(NamedTuple):
    """What is searched: its name, its vector of length 1, (d,), and the hashes of the images that it is made of."""

    name: str
    kind: Kind
    vector: Floats
    hashes: tuple[str, ...] = ()


class Match(NamedTuple):
    """An image found: its id, the cosine, whether that is no better than chance, and copies of it in the folder."""

    id: str
    row: int
    score: float
    weak: bool = False
    copies: tuple[str, ...] = ()


class Found(NamedTuple):
    """The matches of a query, the best first; `same` are images in the folder that are the query itself."""

    query: Query
    matches: tuple[Match, ...]
    same: tuple[str, ...]
    limit: float | None

    @property
    def weak(self) -> int:
        """How many matches are no better than chance."""
        return sum(one.weak for one in self.matches)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        matches = [
            {"path": one.id, "score": round(one.score, 6), "weak": one.weak, "copies": list(one.copies)}
            for one in self.matches
        ]
        limit = None if self.limit is None else round(self.limit, 6)
        return {
            "query": self.query.name,
            "kind": self.query.kind,
            "limit": limit,
            "the_same_image": list(self.same),
            "matches": matches,
        }


class Limits(NamedTuple):
    """The cosines below which a match of a text, or of an image, is no better than chance; None: nothing is known."""

    text: float | None
    image: float | None

    def of(self, kind: Kind) -> float | None:
        """Return the limit for queries of one kind; there is none for averages of texts and images."""
        return {"text": self.text, "image": self.image, "both": None}[kind]


def search(index: Index, queries: Sequence[Query], top: int, limits: Limits) -> list[Found]:
    """Return the `top` different images most similar to each query; the queries themselves are left out."""
    scores = index.vectors @ np.stack([one.vector for one in queries]).T
    return [
        _found(index, query, column, top, limits.of(query.kind))
        for query, column in zip(queries, np.ascontiguousarray(scores.T), strict=True)
    ]


def _found(index: Index, query: Query, scores: Floats, top: int, limit: float | None) -> Found:
    same = tuple(row.id for row in index.rows if row.hash in query.hashes) if query.hashes else ()
    seen: dict[str, list[int]] = {}
    taken = 0
    for place in ordered(scores, top):
        content = index.rows[place].hash
        if content in query.hashes:
            continue
        if content not in seen and taken == top:
            break
        taken += content not in seen
        seen.setdefault(content, []).append(place)
    matches = tuple(
        Match(
            index.rows[places[0]].id,
            places[0],
            float(scores[places[0]]),
            limit is not None and float(scores[places[0]]) <= limit,
            tuple(index.rows[place].id for place in places[1:]),
        )
        for places in seen.values()
    )
    return Found(query, matches, same, limit)


def ordered(scores: Floats, top: int) -> Any:
    """Yield the places of scores from the highest on, ties in order; only as many as are asked for are sorted."""
    done, size = 0, min(len(scores), 2 * top + 16)
    while done < len(scores):
        places = best(scores, size)
        yield from places[done:].tolist()
        done, size = size, min(len(scores), 8 * size)


def best(scores: Floats, count: int) -> NDArray[np.int64]:
    """Return the places of the highest `count` scores, the highest first, ties in order."""
    if count >= len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > least)
    level = np.flatnonzero(scores == least)[: count - len(above)]
    places = np.sort(np.concatenate([above, level]))
    return places[np.argsort(-scores[places], kind="stable")]


def text_limit(index: Index, vectors_of: Callable[[Sequence[str]], Floats]) -> float:
    """Return the cosine that the best match of a text reaches without any relation: 19 of 20 unrelated texts do not."""
    reached = (index.vectors @ vectors_of(UNRELATED).T).max(0)
    return float(np.quantile(reached, 1 - SHARE))


def image_limit(index: Index) -> float | None:
    """Return the cosine that 19 of 20 images of the folder reach with their nearest neighbour; None if there are few.

    An image that is less similar to everything in the folder is not of the kind that the folder holds.
    """
    firsts = {row.hash: place for place, row in reversed(list(enumerate(index.rows)))}
    places = np.array(sorted(firsts.values()))
    if len(places) < FEWEST:
        return None
    drawn = np.sort(np.random.default_rng(0).choice(places, min(SAMPLE, len(places)), replace=False))
    scores = index.vectors @ index.vectors[drawn].T
    contents = np.array([row.hash for row in index.rows])
    for column, place in enumerate(drawn):
        scores[contents == contents[place], column] = -1.0
    return float(np.quantile(scores.max(0), SHARE))
