"""The confusion matrix as an HTML table of links: each cell opens its images, without JavaScript."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitrail.data.manifest import Row
from vitrail.reports.thumbnails import Album, Thumb
from vitrail.tasks.result import Matrix

WIDEST = 30
"""With more classes than this, the most frequent confusions are listed instead of a matrix."""

PAIRS = 60
MISTAKES = 16
"""Images shown in a cell of wrong predictions."""

RIGHT = 6
"""Images shown in a cell of correct predictions."""


@dataclass(frozen=True)
class ConfusedImage:
    """One small image with its confidence in words, if there is one."""

    thumb: Thumb
    id: str
    sure: str


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix: count, share of the true class, the mistake in words, and some images."""

    name: str
    truth: str
    answer: str
    count: int
    share: float
    mistake: str
    right: bool
    pictures: tuple[ConfusedImage, ...]

    @property
    def more(self) -> int:
        """Number of images that are not shown."""
        return self.count - len(self.pictures)


@dataclass(frozen=True)
class Cells:
    """All cells by row; `rows` is empty if there are too many classes; `open` contains the cells with images."""

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    note: str
    rows: tuple[tuple[Cell, ...], ...]
    open: tuple[Cell, ...]


def cells(matrix: Matrix, rows: Mapping[str, Row], album: Album) -> Cells:
    """Fill the cells with images, the largest confusions first, until the album's budget is used up."""
    counts = np.array(matrix.counts)
    order = sorted(matrix.shots, key=lambda at: (at[0] == at[1], -counts[at]))
    wide = len(matrix.labels) > WIDEST
    order = [at for at in order if at[0] != at[1]][:PAIRS] if wide else order
    filled = {at: _cell(matrix, counts, at, _pictures(matrix, at, rows, album)) for at in order}
    if wide:
        return Cells(matrix.labels, matrix.answers, matrix.note, (), tuple(filled.values()))
    k = range(len(matrix.labels))
    empty = {(i, j): _cell(matrix, counts, (i, j), ()) for i in k for j in k if (i, j) not in filled}
    every = empty | filled
    table = tuple(tuple(every[i, j] for j in k) for i in k)
    return Cells(matrix.labels, matrix.answers, matrix.note, table, tuple(filled.values()))


def _cell(
    matrix: Matrix, counts: NDArray[np.int64], at: tuple[int, int], pictures: tuple[ConfusedImage, ...]
) -> Cell:
    truth, answer = matrix.labels[at[0]], matrix.answers[at[1]]
    share = float(counts[at] / max(1, counts[at[0]].sum()))
    name, right = f"cell-{at[0]}-{at[1]}", at[0] == at[1]
    return Cell(name, truth, answer, int(counts[at]), share, matrix.mistake(*at), right, pictures)


def _pictures(
    matrix: Matrix, at: tuple[int, int], rows: Mapping[str, Row], album: Album
) -> tuple[ConfusedImage, ...]:
    pictures = []
    for shot in matrix.shots[at][: RIGHT if at[0] == at[1] else MISTAKES]:
        thumb = album.thumb(rows[shot.id])
        if thumb is not None:
            sure = "" if shot.confidence is None else f"{100 * shot.confidence:.0f} % sure"
            pictures.append(ConfusedImage(thumb, shot.id, sure))
    return tuple(pictures)
