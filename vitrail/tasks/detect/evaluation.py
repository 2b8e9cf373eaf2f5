"""Evaluation of detection: average precision of boxes as COCO computes it, and what a threshold finds and misses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.boxes import Boxes, FoundBoxes
from vitrail.data.manifest import Row, group_key
from vitrail.metrics.box_ap import BoxSet, average_precision
from vitrail.metrics.box_confusion import BoxPairs, confusion, count_duplicates, pair_boxes
from vitrail.metrics.box_matching import SIZES, MatchedBoxes, bit, match_boxes
from vitrail.metrics.intervals import DRAWS, bootstrap, resampled
from vitrail.metrics.score_threshold import best_threshold
from vitrail.metrics.temperature import fit_label_temperature, scale_scores, score_logits
from vitrail.tasks.detect.report import report_of
from vitrail.tasks.detect.report_sections import LEAST
from vitrail.tasks.result import VALIDATION, Gathered, Number, Result, Scope

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

Find = Callable[[Mapping[str, Tensor], Sequence[Geometry]], list[FoundBoxes]]
"""Returns the boxes of each image of a batch in pixels of the original, without a threshold, the best 300 at most."""

QUICK = 30_000_000
"""Boxes × bootstrap samples up to which the interval of mAP takes about a second."""

SCORES = (
    "map", "map50", "map75", "map_small", "map_medium", "map_large", "ar", "precision", "recall", "f1"
)  # fmt: skip
"""The scores of a bootstrap sample; `ar` is average recall."""


class Answers(NamedTuple):
    """The boxes that count in precision and recall: scores and whether each is right, both (n,); and the true boxes."""

    scores: Array
    right: Flags
    truths: int


class BoxEvaluation:
    """Evaluation of boxes in the pixels of the originals. Classes that no truth shows are left out of every mean.

    `find` gives scores at the `temperature`; `threshold` is the score from which a box counts in precision, recall and
    confusion. Average precision has no threshold.
    """

    main, unit = "map", "%"

    def __init__(
        self, labels: Sequence[str], find: Find, threshold: float = 0.5, temperature: float = 1.0
    ) -> None:
        self.labels, self.find = tuple(labels), find
        self.threshold, self.temperature = threshold, temperature
        self.kept = Gathered()
        self._set: BoxSet | None = None

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[Boxes],
        at: Sequence[Geometry],
    ) -> None:
        """Add the outputs of a batch and the true boxes of the originals."""
        pairs = zip(self.find(output, at), truths, strict=True)
        images = [self._one(found, true) for found, true in pairs]
        self._set = None
        self.kept.add(
            rows,
            {
                "boxes": _objects(boxes for boxes, _, _ in images),
                "pairs": _objects(one for _, one, _ in images),
                "duplicates": np.array([two for _, _, two in images], np.int64),
            },
        )

    def _one(self, found: FoundBoxes, truths: Boxes) -> tuple[MatchedBoxes, BoxPairs, tuple[int, int]]:
        """Return the matches, the pairs at the threshold and the duplicates of one image."""
        matches = match_boxes(found, truths, len(self.labels))
        order = np.argsort(-found.scores, kind="stable")
        ordered = (found.xyxy[order], found.kinds[order], found.scores[order])
        pairs = pair_boxes(ordered, truths, matches, self.threshold)
        above = matches.scores >= self.threshold
        duplicates = count_duplicates(ordered[0][above], ordered[1][above])
        return matches._replace(partner=np.zeros(0, np.int64)), pairs, duplicates

    def merge(self, other: BoxEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)
        self._set = None

    @property
    def rows(self) -> list[Row]:
        return self.kept.rows

    @property
    def boxes(self) -> BoxSet:
        """The matched boxes of all images."""
        if self._set is None:
            self._set = BoxSet.of(self.kept["boxes"].tolist(), len(self.labels))
        return self._set

    @property
    def pairs(self) -> list[BoxPairs]:
        """The pairs of true and predicted boxes of each image, at the threshold."""
        pairs: list[BoxPairs] = self.kept["pairs"].tolist()
        return pairs

    @property
    def truths(self) -> Counts:
        """The true boxes of each class in each image, without crowds: (images, k)."""
        counts: Counts = self.boxes.truths[:, :, 0]
        return counts

    def matrix(self) -> Counts:
        """Return the confusion matrix (k + 1, k + 1) at the threshold; last row invented, last column missed."""
        return confusion(self.pairs, len(self.labels))

    def scores(self) -> dict[str, float]:
        """Return mAP (IoU 0.5 to 0.95), mAP at IoU 0.5 and the number of images; an output alone has no loss."""
        found = average_precision(self.boxes)
        mean, half = (float(np.nan_to_num(one[0])) for one in (found.mean(), found.at(0)))
        return {"map": mean, "map50": half, "pictures": len(self.kept)}

    def answers(self) -> Answers:
        """Return all boxes that count at IoU 0.5."""
        place = bit("all", 0)
        counted = ~(self.boxes.ignored >> place & 1).astype(bool)
        right = (self.boxes.right >> place & 1).astype(bool)
        return Answers(self.boxes.scores[counted], right[counted], int(self.truths.sum()))

    def calibrate(self) -> Mapping[str, Any]:
        """Return the temperature of the scores, and the threshold with the best F1 at this temperature."""
        scores, right, truths = self.answers()
        plain = scale_scores(scores, 1 / self.temperature)
        sure = plain >= LEAST
        temperature = fit_label_temperature(score_logits(plain[sure])[:, None], right[sure][:, None])
        threshold = best_threshold(scale_scores(plain, temperature), right, truths)
        return {"temperature": temperature, "threshold": threshold}

    def tallies(self) -> Counts:
        """Return right, missed, invented and mistaken boxes of each image at the threshold: (images, 4)."""
        none = len(self.labels)
        counts = np.zeros((len(self.kept), 4), np.int64)
        for row, one in zip(counts, self.pairs, strict=True):
            missed, invented = one.answer == none, one.truth == none
            right = one.answer == one.truth
            row[:] = right.sum(), missed.sum(), invented.sum(), (~(right | missed | invented)).sum()
        return counts

    def per_image(self) -> Mapping[str, Array]:
        """Return mAP, F1, and the numbers of missed, invented and mistaken boxes of each image.

        An image without true boxes has 1 where nothing is predicted above the threshold, else 0.
        """
        right, missed, invented, mistaken = self.tallies().T.astype(np.float64)
        f1, empty = self.f1(), self.truths.sum(1) == 0
        each = [
            average_precision(BoxSet.of([one], len(self.labels))).mean()[0]
            for one in self.kept["boxes"].tolist()
        ]
        return {
            "map": np.where(empty, f1, np.array(each, np.float64)),
            "f1": f1,
            "recall": np.where(empty, 1.0, right / np.maximum(right + missed + mistaken, 1)),
            "missed": missed,
            "invented": invented,
            "mistaken": mistaken,
        }

    def f1(self) -> Array:
        """Return F1 at the threshold for each image: (images,); 1 without any box."""
        right, missed, invented, mistaken = self.tallies().T.astype(np.float64)
        whole = 2 * right + missed + invented + 2 * mistaken
        f1: Array = np.divide(2 * right, whole, out=np.ones_like(whole), where=whole > 0)
        return f1

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample; each box counts as often as its image."""
        return {name: float(values[0]) for name, values in self.drawn(np.asarray(counts)[None]).items()}

    def drawn(self, draws: Array) -> dict[str, Array]:
        """Return the scores of bootstrap samples by name: draws (draws, images) -> (draws,)."""
        found = average_precision(self.boxes, draws)
        sizes = [average_precision(self.boxes, draws, size).mean() for size in tuple(SIZES)[1:]]
        rates = self.rates(draws)
        values = (found.mean(), found.at(0), found.at(5), *sizes, found.mean_recall(), *rates)
        return dict(zip(SCORES, values, strict=True))

    def rates(self, draws: Array) -> tuple[Array, Array, Array]:
        """Return precision, recall and F1 over all boxes at the threshold, in bootstrap samples: (draws,) each."""
        right, missed, invented, mistaken = (draws @ self.tallies()).T.astype(np.float64)
        answers, truths = right + invented + mistaken, right + missed + mistaken
        parts = ((right, answers), (right, truths), (2 * right, answers + truths))
        precision, recall, f1 = (
            np.divide(part, whole, out=np.full(len(draws), np.nan), where=whole > 0) for part, whole in parts
        )
        return precision, recall, f1

    def headline(self) -> Number:
        """Return mAP with its interval."""
        value = self.scores()["map"]
        draws = resampled([group_key(row) for row in self.rows])
        score = bootstrap(value, average_precision(self.boxes, draws).mean(), len(self.rows))
        return Number.of(score.to_dict(), name="mAP50-95", fact="mean average precision, IoU 0.50 to 0.95")

    @property
    def quick_headline(self) -> bool:
        """Whether the interval of mAP is cheap enough for every epoch."""
        return len(self.kept) > 0 and len(self.boxes.scores) * DRAWS <= QUICK

    def result(self, scope: Scope = Scope(), fitted_on: str = VALIDATION) -> Result:
        """Return everything that reports contain; `fitted_on` names the data of temperature and threshold."""
        return report_of(self, scope, fitted_on)


def _objects(values: Iterable[Any]) -> NDArray[Any]:
    """Return values as an array of objects, one an image."""
    listed = list(values)
    array = np.empty(len(listed), object)
    for place, value in enumerate(listed):
        array[place] = value
    return array
