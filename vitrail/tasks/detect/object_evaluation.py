"""Evaluation of objects, boxes or masks: average precision as COCO computes it, and what a threshold finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.manifest import Row, group_key
from vitrail.metrics.box_ap import BoxSet, average_precision
from vitrail.metrics.box_confusion import BoxPairs, confusion, tally
from vitrail.metrics.box_matching import SIZES, bit
from vitrail.metrics.intervals import DRAWS, bootstrap, resampled
from vitrail.metrics.score_threshold import best_threshold
from vitrail.metrics.temperature import fit_label_temperature, scale_scores, score_logits
from vitrail.tasks.detect.report import ObjectReport
from vitrail.tasks.detect.report_sections import LEAST
from vitrail.tasks.result import VALIDATION, Gathered, Number, Result, Scope

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

FoundT = TypeVar("FoundT")
TruthT = TypeVar("TruthT")

QUICK = 30_000_000
"""Objects × bootstrap samples up to which the interval of mAP takes about a second."""

PRECISIONS = ("map", "map50", "map75", "map_small", "map_medium", "map_large", "ar")
"""The scores of average precision in a bootstrap sample; `ar` is average recall."""

RATES = ("precision", "recall", "f1")
"""The scores at the threshold."""


class Answers(NamedTuple):
    """The predictions that count in precision and recall: scores and whether each is right, both (n,); true objects."""

    scores: Array
    right: Flags
    truths: int


class ObjectEvaluation(ABC, Generic[FoundT, TruthT]):
    """Evaluation of objects in the pixels of the originals. Classes that no truth shows are left out of every mean.

    `find` returns the objects of each image of a batch, without a threshold, the best 300 at most, with scores at the
    `temperature`; `threshold` is the score from which an object counts in precision, recall and confusion. Average
    precision has no threshold.
    """

    prefix: ClassVar[str] = ""
    """Stands before the names of the scores of average precision."""
    nouns: ClassVar[tuple[str, str]] = ("box", "boxes")
    """What reports call one object, and several."""
    report: ClassVar[type[ObjectReport]] = ObjectReport
    main, unit = "map", "%"

    def __init__(
        self,
        labels: Sequence[str],
        find: Callable[[Mapping[str, Tensor], Sequence[Geometry]], list[FoundT]],
        threshold: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        self.labels, self.find = tuple(labels), find
        self.threshold, self.temperature = threshold, temperature
        self.kept = Gathered()
        self._tables: dict[str, BoxSet] = {}

    @abstractmethod
    def one(self, found: FoundT, truth: TruthT) -> dict[str, Any]:
        """Return what is kept of an image: arrays of one size, and other objects.

        At least "matches" (`MatchedBoxes`), "pairs" (`BoxPairs`) at the threshold, and "duplicates" (2,): the pairs of
        predictions in one place, and those of two classes.
        """

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[TruthT],
        at: Sequence[Geometry],
    ) -> None:
        """Add the outputs of a batch and the true objects of the originals."""
        pairs = zip(self.find(output, at), truths, strict=True)
        images = [self.one(found, true) for found, true in pairs]
        self._tables = {}
        names = images[0] if images else ()
        self.kept.add(rows, {name: _column([image[name] for image in images]) for name in names})

    def merge(self, other: Self) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)
        self._tables = {}

    @property
    def rows(self) -> list[Row]:
        return self.kept.rows

    def table(self, name: str) -> BoxSet:
        """Return the matches of all images that are kept under this name."""
        if name not in self._tables:
            self._tables[name] = BoxSet.of(self.kept[name].tolist(), len(self.labels))
        return self._tables[name]

    @property
    def objects(self) -> BoxSet:
        """The matched objects of all images."""
        return self.table("matches")

    @property
    def pairs(self) -> list[BoxPairs]:
        """The pairs of true and predicted objects of each image, at the threshold."""
        pairs: list[BoxPairs] = self.kept["pairs"].tolist()
        return pairs

    @property
    def truths(self) -> Counts:
        """The true objects of each class in each image, without crowds: (images, k)."""
        counts: Counts = self.objects.truths[:, :, 0]
        return counts

    def matrix(self) -> Counts:
        """Return the confusion matrix (k + 1, k + 1) at the threshold; last row invented, last column missed."""
        return confusion(self.pairs, len(self.labels))

    def scores(self) -> dict[str, float]:
        """Return mAP (IoU 0.5 to 0.95), mAP at IoU 0.5 and the number of images; an output alone has no loss."""
        found = average_precision(self.objects)
        mean, half = (float(np.nan_to_num(one[0])) for one in (found.mean(), found.at(0)))
        return {f"{self.prefix}map": mean, f"{self.prefix}map50": half, "pictures": len(self.kept)}

    def answers(self) -> Answers:
        """Return all predictions that count at IoU 0.5."""
        place = bit("all", 0)
        counted = ~(self.objects.ignored >> place & 1).astype(bool)
        right = (self.objects.right >> place & 1).astype(bool)
        return Answers(self.objects.scores[counted], right[counted], int(self.truths.sum()))

    def calibrate(self) -> Mapping[str, Any]:
        """Return the temperature of the scores, and the threshold with the best F1 at this temperature."""
        scores, right, truths = self.answers()
        plain = scale_scores(scores, 1 / self.temperature)
        sure = plain >= LEAST
        temperature = fit_label_temperature(score_logits(plain[sure])[:, None], right[sure][:, None])
        threshold = best_threshold(scale_scores(plain, temperature), right, truths)
        return {"temperature": temperature, "threshold": threshold}

    def tallies(self) -> Counts:
        """Return right, missed, invented and mistaken objects of each image at the threshold: (images, 4)."""
        return tally(self.pairs, len(self.labels))

    def per_image(self) -> Mapping[str, Array]:
        """Return mAP, F1, and the numbers of missed, invented and mistaken objects of each image.

        An image without true objects has 1 where nothing is predicted above the threshold, else 0.
        """
        right, missed, invented, mistaken = self.tallies().T.astype(np.float64)
        f1, empty = self.f1(), self.truths.sum(1) == 0
        each = [
            average_precision(BoxSet.of([one], len(self.labels))).mean()[0]
            for one in self.kept["matches"].tolist()
        ]
        return {
            self.main: np.where(empty, f1, np.array(each, np.float64)),
            "f1": f1,
            "recall": np.where(empty, 1.0, right / np.maximum(right + missed + mistaken, 1)),
            "missed": missed,
            "invented": invented,
            "mistaken": mistaken,
        }

    def f1(self) -> Array:
        """Return F1 at the threshold for each image: (images,); 1 without any object."""
        right, missed, invented, mistaken = self.tallies().T.astype(np.float64)
        whole = 2 * right + missed + invented + 2 * mistaken
        f1: Array = np.divide(2 * right, whole, out=np.ones_like(whole), where=whole > 0)
        return f1

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample; each object counts as often as its image."""
        return {name: float(values[0]) for name, values in self.drawn(np.asarray(counts)[None]).items()}

    def drawn(self, draws: Array) -> dict[str, Array]:
        """Return the scores of bootstrap samples by name: draws (draws, images) -> (draws,)."""
        found = average_precision(self.objects, draws)
        sizes = [average_precision(self.objects, draws, size).mean() for size in tuple(SIZES)[1:]]
        values = (found.mean(), found.at(0), found.at(5), *sizes, found.mean_recall())
        named = zip(PRECISIONS, values, strict=True)
        precisions = {f"{self.prefix}{name}": one for name, one in named}
        return precisions | dict(zip(RATES, self.rates(draws), strict=True))

    def rates(self, draws: Array) -> tuple[Array, Array, Array]:
        """Return precision, recall and F1 over all objects at the threshold, in bootstrap samples: (draws,) each."""
        right, missed, invented, mistaken = (draws @ self.tallies()).T.astype(np.float64)
        answers, truths = right + invented + mistaken, right + missed + mistaken
        parts = ((right, answers), (right, truths), (2 * right, answers + truths))
        precision, recall, f1 = (
            np.divide(part, whole, out=np.full(len(draws), np.nan), where=whole > 0) for part, whole in parts
        )
        return precision, recall, f1

    def headline(self) -> Number:
        """Return mAP with its interval."""
        value = self.scores()[self.main]
        draws = resampled([group_key(row) for row in self.rows])
        score = bootstrap(value, average_precision(self.objects, draws).mean(), len(self.rows))
        name, fact = self.report.facts[self.main]
        return Number.of(score.to_dict(), name, fact)

    @property
    def quick_headline(self) -> bool:
        """Whether the interval of mAP is cheap enough for every epoch."""
        return len(self.kept) > 0 and len(self.objects.scores) * DRAWS <= QUICK

    def result(self, scope: Scope = Scope(), fitted_on: str = VALIDATION) -> Result:
        """Return everything that reports contain; `fitted_on` names the data of temperature and threshold."""
        return self.report(self, scope).result(fitted_on)


def _column(values: Sequence[Any]) -> NDArray[Any]:
    """Return the values of images as one array: stacked arrays, or an array of other objects, one an image."""
    if isinstance(values[0], np.ndarray):
        return np.stack(values)
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array
