"""How good answers are: an `Evaluation` takes them in batch by batch, its `Result` is what every report lays out.

A result is plain data. Pages, the model card and the command line know numbers, tables and sections, never a task.
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
"""What the temperature of a training is fitted on."""


class Number(NamedTuple):
    """One score with its 95 % interval, its unit, and which way is better.

    A `unit` of "%" means a share, told times a hundred; "" a bare number; anything else stands behind the number.
    `name` is what tables call it and `fact` what pages say of it; one that is empty is left out there. `why` tells
    why there is no interval, or no value.
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
        """Return the number that plain data holds as value, low, high, and perhaps why, unit and better."""
        low, high, why = score.get("low"), score.get("high"), score.get("why", "")
        unit, better = score.get("unit", "%"), score.get("better", "higher")
        return cls(score["value"], low, high, unit, better, name, fact, why)

    def text(self, digits: int = 1) -> str:
        """Return the value for people; a dash where there is none."""
        return measured(self.value, self.unit, digits)

    def to_dict(self) -> dict[str, Any]:
        """Return value and interval as plain data, and what they are where that is not a share, higher better."""
        plain: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        plain |= {"unit": self.unit} if self.unit != "%" else {}
        return plain | ({"better": self.better} if self.better != "higher" else {})

    def span(self) -> str:
        """Return the interval for people, without its unit; a dash where there is none."""
        if self.low is None or self.high is None:
            return "–"
        if self.unit == "%":
            return f"{100 * self.low:.1f} – {100 * self.high:.1f}"
        return f"{self.low:.3g} – {self.high:.3g}"


def measured(value: float | None, unit: str, digits: int = 1) -> str:
    """Return a value with its unit for people: 91.3 %, 2.41 px, 0.173; a dash where there is none."""
    if value is None:
        return "–"
    if unit == "%":
        return f"{100 * value:.{digits}f} %"
    return f"{value:.3g} {unit}".rstrip()


class Column(NamedTuple):
    """A column of a table: its numbers stand flush right, or with their intervals beside them (`spread`).

    `card` is what a model card calls it where that is another name; "" leaves it out there.
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
    """One image of a page, by its row's id: what is true, what was answered, how sure; `right` None: who can say.

    `caption` stands in the place of all that where one word of truth and one of answer do not tell it.
    """

    id: str
    truth: str
    answer: str
    confidence: float | None = None
    right: bool | None = None
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One part of a page, as data. `line` is what the command line says of it."""

    kind: ClassVar[str] = ""
    heading: str

    @property
    def line(self) -> str:
        """Return a line for the command line, or nothing."""
        return ""


@dataclass(frozen=True)
class TableSection(Section):
    """A table with a note below; `card` is its heading on a model card."""

    kind: ClassVar[str] = "table"
    table: Table
    note: str = ""
    card: str = f"Scores on {NEVER_SEEN}"


@dataclass(frozen=True)
class Matrix(Section):
    """What of one class was taken for another: counts (k, k), truth down; the images of each cell, surest first."""

    kind: ClassVar[str] = "matrix"
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    shots: Mapping[tuple[int, int], Sequence[Shot]]


@dataclass(frozen=True)
class Gallery(Section):
    """A row of images; `explain`: beside each, where the network looked."""

    kind: ClassVar[str] = "gallery"
    hint: str
    shots: tuple[Shot, ...]
    explain: bool = True


@dataclass(frozen=True)
class Overlays(Section):
    """A row of images with the answer drawn on each by the task (`Task.render`)."""

    kind: ClassVar[str] = "overlays"
    hint: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Curve(Section):
    """Named lines of points (x, y) with what the axes are called."""

    kind: ClassVar[str] = "curve"
    series: Mapping[str, Sequence[tuple[float, float]]]
    x: str
    y: str
    note: str = ""


@dataclass(frozen=True)
class Reliability(Section):
    """Whether probabilities are honest: a calibration as report.json holds it, and what its temperature came from.

    Where it holds no `ece_noise`, or no `ece_before`, nothing is said of chance, or of temperature 1.
    """

    kind: ClassVar[str] = "reliability"
    calibration: Mapping[str, Any]
    fitted_on: str = VALIDATION

    @property
    def line(self) -> str:
        """Return the calibration error beside what chance alone would show."""
        told = {name: measured(self.calibration.get(name), "%") for name in ("ece_noise", "ece_before")}
        chance = f"; chance alone would show {told['ece_noise']}" if "ece_noise" in self.calibration else ""
        before = f" (without temperature {told['ece_before']})" if "ece_before" in self.calibration else ""
        return f"calibration error {measured(self.calibration['ece_after'], '%')}{chance}{before}"


@dataclass(frozen=True)
class Limits(Section):
    """What a model card says of where the model must not be trusted."""

    kind: ClassVar[str] = "limits"
    lines: tuple[str, ...]


class Result(NamedTuple):
    """What an evaluation found.

    `numbers` are the scores by name, the first the one that people ask for first; `main` names the one by which the
    best weights are kept. `tables` are for the command line, `sections` for the page and the card. `details` is what
    report.json holds: plain data, at least under "test".
    """

    main: str
    numbers: Mapping[str, Number]
    verdict: str
    tables: Sequence[Table] = ()
    sections: Sequence[Section] = ()
    details: Mapping[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return what report.json holds: the verdict, and the details."""
        plain = {name: number.value for name, number in self.numbers.items()}
        return {"verdict": self.verdict, "test": plain, **self.details}


class Exports(NamedTuple):
    """What others call a task: the tag under which hubs index its models, and the scores that a card states there."""

    pipeline_tag: str
    metrics: tuple[str, ...] = ()


class Scope(NamedTuple):
    """Which images were scored, in words, and the ids of those that have a twin among the training images."""

    called: str = NEVER_SEEN
    leaked: frozenset[str] = frozenset()


class Evaluation(Protocol):
    """Scores gathered batch by batch, the same after an epoch of training and in a report; it can be pickled."""

    main: str
    """The score by which the best weights are kept; with `unit` ("%", "", "px") and `better` ("lower") beside it."""

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[Any],
        at: Sequence[Geometry],
    ) -> None:
        """Take in a batch: the network's output in float32 on the CPU, and the truth in the original's frame."""
        ...

    def merge(self, other: Any) -> None:
        """Take in what another process gathered; afterwards the images stand in the order of their ids."""
        ...

    def scores(self) -> dict[str, float]:
        """Return the scores that are cheap, after every epoch: the main one, "loss", "images"."""
        ...

    def calibrate(self) -> Mapping[str, Any]:
        """Return the settings of the task that are learned from these answers, of validation images."""
        ...

    def per_image(self) -> Mapping[str, Array]:
        """Return numbers of each image, in the order of `rows`."""
        ...

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a resample in which each image stands so often: (n,)."""
        ...

    def result(self, scope: Scope = Scope()) -> Result:
        """Return everything that reports say, with intervals."""
        ...


def headline(evaluation: Evaluation) -> Number:
    """Return the score that people ask for first; an evaluation may have a cheap `headline` of its own."""
    quick = getattr(evaluation, "headline", None)
    number: Number = quick() if quick else next(iter(evaluation.result().numbers.values()))
    return number


class Kept(NamedTuple):
    """The score by which the best weights are kept: its name, its unit, and 1 where higher is better, else -1."""

    name: str
    unit: str
    sign: int


def kept_by(evaluation: Evaluation) -> Kept:
    """Return what the best weights are kept by; where nothing is said of it, a bare number, higher better."""
    better = getattr(evaluation, "better", "higher")
    return Kept(evaluation.main, getattr(evaluation, "unit", ""), 1 if better == "higher" else -1)


@dataclass
class Gathered:
    """What an evaluation keeps of every image: its row, and arrays by name whose first axis is the images."""

    rows: list[Row] = field(default_factory=list)
    parts: dict[str, list[Array]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Array:
        """Return one array of all images; of none an empty one."""
        parts = self.parts.get(name, [])
        if len(parts) > 1:
            self.parts[name] = parts = [np.concatenate(parts)]
        return parts[0] if parts else np.zeros(0)

    def add(self, rows: Sequence[Row], arrays: Mapping[str, Array]) -> None:
        """Take in some images."""
        self.rows += rows
        for name, array in arrays.items():
            self.parts.setdefault(name, []).append(array)

    def merge(self, other: Gathered) -> None:
        """Take in others' images and put all into the order of their ids, as a manifest has them."""
        self.add(other.rows, {name: other[name] for name in other.parts})
        order = sorted(range(len(self.rows)), key=lambda i: natural(self.rows[i].id))
        self.rows = [self.rows[i] for i in order]
        self.parts = {name: [self[name][order]] for name in self.parts}
