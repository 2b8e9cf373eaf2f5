"""What the page of a result shows: the sections of the report, with images that can be opened and corrected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vitrail.data.manifest import Row
from vitrail.studio.corrections import Correction
from vitrail.studio.run_files import ONE_NAME, LabelError, RunFiles
from vitrail.tasks.result import Gallery, Matrix, Number, Overlays, Result, Shot

WIDEST = 30
"""With more classes than this, the most frequent confusions are listed instead of a matrix."""

PAIRS = 60
"""Number of confusions in the list."""

PAGE = 60
"""Images of a cell, or label errors, on one page."""


class Entry(NamedTuple):
    """A cell of the matrix: its place, its number of images, its share of the true class, and whether it is right.

    Without an answer the true one was `missed`; an answer without truth is `invented`.
    """

    at: str
    truth: str
    answer: str
    images: int
    share: float
    right: bool
    missed: bool = False
    invented: bool = False


class Photo(NamedTuple):
    """An image with its truth and its answer, the decision that holds about it, and the label that a click sets."""

    shot: Shot
    row: Row | None
    correction: Correction | None
    relabel: str

    @property
    def file(self) -> str:
        """The name of its file."""
        return self.shot.id.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class ResultView:
    """The result of a run, and the decisions about its images."""

    run: RunFiles
    result: Result
    corrections: Mapping[str, Correction]

    @property
    def numbers(self) -> list[Number]:
        """The scores that the page states, the most important first."""
        first = self.result.numbers.get(self.result.main)
        rest = [one for one in self.result.numbers.values() if one is not first]
        return [one for one in [*([first] if first else []), *rest] if one.fact]

    @property
    def points(self) -> list[dict[str, Any]]:
        """The measured operating points with their score as text; none for a model with one."""
        rows = self.run.report().get("points", ())
        return [
            {**row, "told": Number.of(row["score"]).text(), "span": Number.of(row["score"]).span()}
            for row in rows
        ]

    def sections(self) -> Iterator[dict[str, Any]]:
        """Yield the sections for the template: their kind, their number in addresses, and what they show."""
        for number, section in enumerate(self.result.sections):
            shared = {"kind": section.kind, "number": number, "heading": section.heading}
            if isinstance(section, Matrix):
                yield {
                    **shared,
                    "matrix": section,
                    "rows": matrix_rows(section),
                    "pairs": confusions(section),
                }
            elif isinstance(section, Gallery | Overlays):
                explained = isinstance(section, Gallery) and section.explain
                photos = self.photos(section.shots)
                yield {**shared, "hint": section.hint, "photos": photos, "explained": explained}
            elif section.kind in ("table", "curve", "bars", "picture", "reliability"):
                yield {**shared, "section": section}

    def photos(self, shots: Sequence[Shot]) -> list[Photo]:
        """Return images with what is known and decided about them."""
        rows, truth = self.run.rows(), self.run.truth()
        one_name = truth is not None and truth.kind == ONE_NAME
        known = set(truth.names) if truth is not None else set()
        return [
            Photo(
                shot,
                rows.get(shot.id),
                self.corrections.get(shot.id),
                shot.answer if one_name and shot.answer in known and shot.answer != shot.truth else "",
            )
            for shot in shots
        ]

    def cell(self, at: str) -> tuple[Entry, list[Photo]] | None:
        """Return a cell of the matrix, such as "2-5", with its images; None if there is no such cell."""
        matrix = self.matrix
        row, _, col = at.partition("-")
        if matrix is None or not (row.isdecimal() and col.isdecimal()):
            return None
        place = (int(row), int(col))
        if max(place) >= len(matrix.labels):
            return None
        return _entry(matrix, *place), self.photos(matrix.shots.get(place, ()))

    @property
    def matrix(self) -> Matrix | None:
        """The confusion matrix, if the result has one."""
        return next((one for one in self.result.sections if isinstance(one, Matrix)), None)

    def label_errors(self, errors: Sequence[LabelError]) -> list[Photo]:
        """Return the probable label errors as images."""
        return self.photos(
            [Shot(one.id, one.label, one.looks_like, one.probability, False) for one in errors]
        )


def matrix_rows(matrix: Matrix) -> list[tuple[str, list[Entry]]]:
    """Return the rows of a matrix with their class; none if there are too many classes for a table."""
    if len(matrix.labels) > WIDEST:
        return []
    k = range(len(matrix.labels))
    return [(matrix.labels[i], [_entry(matrix, i, j) for j in k]) for i in k]


def confusions(matrix: Matrix) -> list[Entry]:
    """Return the most frequent confusions."""
    wrong = [(i, j) for i, j in matrix.shots if i != j]
    wrong.sort(key=lambda at: -matrix.counts[at[0]][at[1]])
    return [_entry(matrix, i, j) for i, j in wrong[:PAIRS]]


def _entry(matrix: Matrix, i: int, j: int) -> Entry:
    count = matrix.counts[i][j]
    share = count / max(1, sum(matrix.counts[i]))
    return Entry(
        f"{i}-{j}", matrix.labels[i], matrix.answers[j], count, share, i == j,
        missed=bool(matrix.columns) and j == len(matrix.columns) - 1,
        invented=bool(matrix.columns) and i == len(matrix.labels) - 1,
    )  # fmt: skip
