"""The confusion matrix as a table of links: every cell opens its pictures, without a script."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from vitrail.evaluate.scores import Judged, Scores
from vitrail.reports.album import Album, Thumb
from vitrail.tasks.classify.targets import labels_of

WIDEST = 30
"""More classes than this are not shown as a matrix but as a list of the most frequent mix-ups."""

PAIRS = 60
MISTAKES = 16
"""Pictures shown of a cell of mistakes."""

RIGHT = 6
"""Pictures shown of a cell of right answers."""


@dataclass(frozen=True)
class Picture:
    """One small picture with the number that goes with it."""

    thumb: Thumb
    id: str
    sure: str


@dataclass(frozen=True)
class Cell:
    """What of one class was taken for one class: how many, which share of the class, some pictures."""

    name: str
    truth: str
    answer: str
    count: int
    share: float
    pictures: tuple[Picture, ...]

    @property
    def right(self) -> bool:
        """Whether it lies on the diagonal."""
        return self.truth == self.answer

    @property
    def more(self) -> int:
        """Pictures that are not shown."""
        return self.count - len(self.pictures)


@dataclass(frozen=True)
class Matrix:
    """All cells by row; `rows` is empty where there are too many classes, `open` holds the cells with pictures."""

    labels: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    open: tuple[Cell, ...]


def cells(scores: Scores, album: Album) -> Matrix:
    """Fill the cells with pictures, the largest groups of mistakes first, as far as the album reaches."""
    counts = scores.matrix()
    held: dict[tuple[int, int], list[Judged]] = defaultdict(list)
    place = {label: i for i, label in enumerate(scores.labels)}
    for one in scores.judged:
        held[place[labels_of(one.row)[0]], place[one.prediction.label]].append(one)
    order = sorted(held, key=lambda at: (at[0] == at[1], -len(held[at])))
    wide = len(scores.labels) > WIDEST
    order = [at for at in order if at[0] != at[1]][:PAIRS] if wide else order
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    filled = {at: _cell(scores.labels, at, held[at], float(shares[at]), album) for at in order}
    if wide:
        return Matrix(scores.labels, (), tuple(filled.values()))
    k = range(len(scores.labels))
    empty = {
        (i, j): _cell(scores.labels, (i, j), [], 0.0, album) for i in k for j in k if (i, j) not in filled
    }
    every = empty | filled
    return Matrix(scores.labels, tuple(tuple(every[i, j] for j in k) for i in k), tuple(filled.values()))


def _cell(
    labels: tuple[str, ...], at: tuple[int, int], judged: list[Judged], share: float, album: Album
) -> Cell:
    truth, answer = labels[at[0]], labels[at[1]]
    most = RIGHT if truth == answer else MISTAKES
    surest = sorted(judged, key=lambda one: -one.prediction.probability)[:most]
    pictures = []
    for one in surest:
        thumb = album.thumb(one.row)
        if thumb is not None:
            pictures.append(Picture(thumb, one.row.id, f"{100 * one.prediction.probability:.0f} %"))
    return Cell(f"cell-{at[0]}-{at[1]}", truth, answer, len(judged), share, tuple(pictures))
