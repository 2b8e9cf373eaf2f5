"""Evaluations and their results: an `Evaluation` collects predictions batch by batch and returns a `Result`.

A result is plain data. Pages, the model card and the command line read numbers, tables and sections; they know no task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vitrail.data.labels import natural

if TYPE_CHECKING:
    from torch import Tensor

    from vitrail.data.batch import Geometry
    from vitrail.data.manifest import Row

Array = NDArray[Any]

NEVER_SEEN = "images it never saw"

VALIDATION = "the validation images"
"""The data that the temperature of a trained model is fitted on."""


class Number(NamedTuple):
    """One score with its 95 % interval, its unit and its direction (`better`).

    The `unit` "%" means a share, printed times 100; "" a plain number; any other unit is printed after the number.
    `name` is the name in tables and `fact` the text on pages; an empty one is left out there. `why` is the reason for
    a missing interval or value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = "%"
    better: Literal["higher", "lower"] = "higher"
    name: str = ""
    fact: str = ""
    why: str = ""

    @classmethod
    def of(cls, score: Mapping[str, Any], name: str = "", fact: str = "") -> Number:
        """Return the number from plain data with value, low and high, and optionally why, unit and better."""
        low, high, why = score.get("low"), score.get("high"), score.get("why", "")
        unit, better = score.get("unit", "%"), score.get("better", "higher")
        return cls(score["value"], low, high, unit, better, name, fact, why)

    def text(self, digits: int = 1) -> str:
        """Return the value as text; a dash if there is none."""
        return measured(self.value, self.unit, digits)

    def to_dict(self) -> dict[str, Any]:
        """Return value and interval as plain data; unit and direction only if they are not the defaults."""
        plain: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        plain |= {"unit": self.unit} if self.unit != "%" else {}
        return plain | ({"better": self.better} if self.better != "higher" else {})

    def span(self) -> str:
        """Return the interval as text, without its unit; a dash if there is none."""
        if self.low is None or self.high is None:
            return "–"
        if self.unit == "%":
            return f"{100 * self.low:.1f} – {100 * self.high:.1f}"
        return f"{self.low:.3g} – {self.high:.3g}"


def measured(value: float | None, unit: str, digits: int = 1) -> str:
    """Return a value with its unit as text: 91.3 %, 2.41 px, 0.173; a dash if there is none."""
    if value is None:
        return "–"
    if unit == "%":
        return f"{100 * value:.{digits}f} %"
    return f"{value:.3g} {unit}".rstrip()


class Column(NamedTuple):
    """A column of a table; `right` aligns it to the right, `spread` shows the interval beside each number.

    `card` is its name on a model card if that is different; "" leaves it out there.
    """

    name: str
    right: bool = False
    spread: bool = False
    card: str | None = None


Cell = str | int | Number


class Table(NamedTuple):
    """Rows of cells under named columns."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Shot(NamedTuple):
    """One image of a page: the id of its row, truth, prediction, confidence, and whether it is right (None: unknown).

    `caption` replaces these if truth and prediction are not single words.
    """

    id: str
    truth: str
    answer: str
    confidence: float | None = None
    right: bool | None = None
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One part of a page, as data. `line` is the summary that the command line prints."""

    kind: ClassVar[str] = ""
    heading: str

    @property
    def line(self) -> str:
        """Return a line for the command line, or an empty string."""
        return ""


@dataclass(frozen=True)
class TableSection(Section):
    """A table with a note below; `card` is its heading on a model card, `summary` the line for the command line."""

    kind: ClassVar[str] = "table"
    table: Table
    note: str = ""
    card: str = f"Scores on {NEVER_SEEN}"
    summary: str = ""

    @property
    def line(self) -> str:
        """Return the summary."""
        return self.summary


@dataclass(frozen=True)
class Matrix(Section):
    """Confusion matrix: counts (k, k) with truth as rows, and images of each cell, the most confident first.

    `columns` are the names of the columns if they differ from those of the rows, `labels`: the last row then counts
    predictions without truth, the last column truths without prediction. `note` says what is counted.
    """

    kind: ClassVar[str] = "matrix"
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    shots: Mapping[tuple[int, int], Sequence[Shot]]
    columns: tuple[str, ...] = ()
    note: str = ""

    @property
    def answers(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self.columns or self.labels

    def mistake(self, i: int, j: int) -> str:
        """Return what a cell off the diagonal means: "fern taken for moss", "fern missed", "moss invented"."""
        if self.columns and i == len(self.labels) - 1:
            return f"{self.answers[j]} {self.labels[i]}"
        if self.columns and j == len(self.columns) - 1:
            return f"{self.labels[i]} {self.columns[j]}"
        return f"{self.labels[i]} taken for {self.answers[j]}"


@dataclass(frozen=True)
class Gallery(Section):
    """A row of images; `explain` adds a heat map beside each."""

    kind: ClassVar[str] = "gallery"
    hint: str
    shots: tuple[Shot, ...]
    explain: bool = True


@dataclass(frozen=True)
class Overlays(Section):
    """A row of images with the prediction drawn on each by the task (`Task.render`)."""

    kind: ClassVar[str] = "overlays"
    hint: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Curve(Section):
    """Named lines of points (x, y), and the labels of the axes; `bands` holds the intervals of a line's points."""

    kind: ClassVar[str] = "curve"
    series: Mapping[str, Sequence[tuple[float, float]]]
    x: str
    y: str
    note: str = ""
    bands: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bars(Section):
    """Differences with their intervals by name, shares that are drawn as points of 100; `x` labels the axis."""

    kind: ClassVar[str] = "bars"
    bars: Mapping[str, Number]
    x: str
    note: str = ""

    def spans(self) -> list[tuple[str, float, float, float]]:
        """Return name, value, low and high of each in points; without an interval these are the value."""
        known = [(name, one.value or 0.0, one) for name, one in self.bars.items()]
        return [
            (
                name,
                100 * value,
                100 * (value if one.low is None else one.low),
                100 * (value if one.high is None else one.high),
            )
            for name, value, one in known
        ]


@dataclass(frozen=True)
class Reliability(Section):
    """Calibration of the probabilities, as report.json contains it, and the data its temperature was fitted on.

    Without `ece_noise` nothing is reported about chance; without `ece_before`, nothing about temperature 1.
    """

    kind: ClassVar[str] = "reliability"
    calibration: Mapping[str, Any]
    fitted_on: str = VALIDATION

    @property
    def line(self) -> str:
        """Return the calibration error and the error expected by chance."""
        line = f"calibration error {measured(self.calibration['ece_after'], '%')}"
        if "ece_noise" in self.calibration:
            line += f"; {measured(self.calibration['ece_noise'], '%')} expected by chance"
        if "ece_before" in self.calibration:
            line += f" (without temperature {measured(self.calibration['ece_before'], '%')})"
        return line


@dataclass(frozen=True)
class Picture(Section):
    """A finished image that belongs to no row, as a data URI, such as a sheet of images that a network made."""

    kind: ClassVar[str] = "picture"
    image: str
    note: str = ""


@dataclass(frozen=True)
class Limits(Section):
    """The limits of the model that a model card states."""

    kind: ClassVar[str] = "limits"
    lines: tuple[str, ...]


class Result(NamedTuple):
    """The result of an evaluation.

    `numbers` are the scores by name, the most important first; `main` is the name of the score that selects the best
    weights. `tables` are for the command line, `sections` for the page and the model card. `details` is the content of
    report.json: plain data, at least under "test".
    """

    main: str
    numbers: Mapping[str, Number]
    verdict: str
    tables: Sequence[Table] = ()
    sections: Sequence[Section] = ()
    details: Mapping[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of report.json: the verdict and the details."""
        values = {name: number.value for name, number in self.numbers.items()}
        return {"verdict": self.verdict, "test": values, **self.details}


class Exports(NamedTuple):
    """Names of a task on model hubs: the pipeline tag of its models, and the scores that a model card states."""

    pipeline_tag: str
    metrics: tuple[str, ...] = ()


class Scope(NamedTuple):
    """The scored images: their description, and the ids of those with a duplicate among the training images."""

    called: str = NEVER_SEEN
    leaked: frozenset[str] = frozenset()

    def counted(self, number: int) -> str:
        """Return the number of images with their description: "1 validation image", "2 validation images"."""
        called = self.called.replace("images", "image", 1) if number == 1 else self.called
        return f"{number:,} {called}"


class Evaluation(Protocol):
    """Collects predictions batch by batch, for each epoch of training and for reports; it can be pickled."""

    main: str
    """The score that selects the best weights.

    Optional members are `unit` ("%", "", "px"), `better` ("lower") and `quick_headline` (True: the most important score
    and its interval take no resampling, so that every epoch may state them).
    """

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[Any],
        at: Sequence[Geometry],
    ) -> None:
        """Add a batch: the network's output in float32 on the CPU, and the truth in the pixels of the originals."""
        ...

    def merge(self, other: Any) -> None:
        """Add the images of another process; afterwards all images are sorted by id."""
        ...

    def scores(self) -> dict[str, float]:
        """Return the cheap scores for every epoch: the main one, "pictures" (images), and "loss" if one is known."""
        ...

    def calibrate(self) -> Mapping[str, Any]:
        """Return the task settings that are fitted on these predictions of validation images."""
        ...

    def per_image(self) -> Mapping[str, Array]:
        """Return values of each image, in the order of `rows`."""
        ...

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample; `counts` (n,) is how often each image is drawn."""
        ...

    def result(self, scope: Scope = Scope()) -> Result:
        """Return everything that reports contain, with intervals."""
        ...


def headline(evaluation: Evaluation) -> Number:
    """Return the most important score; an evaluation may have a cheap `headline` method of its own."""
    own = getattr(evaluation, "headline", None)
    number: Number = own() if own else next(iter(evaluation.result().numbers.values()))
    return number


class Kept(NamedTuple):
    """The score that selects the best weights: its name, its unit, and 1 if higher is better, else -1."""

    name: str
    unit: str
    sign: int


def kept_by(evaluation: Evaluation) -> Kept:
    """Return the score that selects the best weights; by default a plain number where higher is better."""
    better = getattr(evaluation, "better", "higher")
    return Kept(evaluation.main, getattr(evaluation, "unit", ""), 1 if better == "higher" else -1)


@dataclass
class Gathered:
    """The data that an evaluation keeps: the rows of the images, and arrays by name with images as first axis."""

    rows: list[Row] = field(default_factory=list)
    parts: dict[str, list[Array]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Array:
        """Return one array of all images; an empty array if there are none."""
        parts = self.parts.get(name, [])
        if len(parts) > 1:
            self.parts[name] = parts = [np.concatenate(parts)]
        return parts[0] if parts else np.zeros(0)

    def add(self, rows: Sequence[Row], arrays: Mapping[str, Array]) -> None:
        self.rows += rows
        for name, array in arrays.items():
            self.parts.setdefault(name, []).append(array)

    def merge(self, other: Gathered) -> None:
        """Add the images of another process and sort all by id, as a manifest does."""
        self.add(other.rows, {name: other[name] for name in other.parts})
        order = sorted(range(len(self.rows)), key=lambda i: natural(self.rows[i].id))
        self.rows = [self.rows[i] for i in order]
        self.parts = {name: [self[name][order]] for name in self.parts}
