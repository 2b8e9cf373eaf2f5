"""Evaluation of detection: average precision, precision and recall, confusion, calibration of boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.boxes import Boxes, FoundBoxes, box_areas, iou_table, take_found
from vitrail.data.manifest import Row, group_key
from vitrail.metrics.box_ap import Sorted, mean_of, mean_precisions, sorted_by_class, threshold_curve
from vitrail.metrics.box_confusion import Sides, confusion, doubled
from vitrail.metrics.box_matching import Answer, Matches, Objects, match
from vitrail.metrics.intervals import bootstrap, resampled
from vitrail.metrics.temperature import fit_label_temperature
from vitrail.tasks.detect.confidences import DRAWS, confidences
from vitrail.tasks.detect.report import report_of
from vitrail.tasks.result import VALIDATION, Gathered, Number, Result, Scope

Array = NDArray[Any]
Find = Callable[[Mapping[str, Tensor], Sequence[Geometry]], list[FoundBoxes]]


class Judged(NamedTuple):
    """What is kept of one image: matches of all boxes, and at the threshold confusion and boxes found twice."""

    matches: Matches
    confusion: NDArray[np.int64]
    doubled: int


class BoxEvaluation:
    """Evaluation in the pixels of the originals, over all boxes that `find` gives; no class without objects counts.

    `threshold` is that of the confusion and of missed and invented boxes; average precision has none.
    """

    main, unit = "map", "%"

    def __init__(
        self, labels: Sequence[str], find: Find, threshold: float = 0.5, temperature: float = 1.0
    ) -> None:
        self.labels, self.find = tuple(labels), find
        self.threshold, self.temperature = threshold, temperature
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[Boxes],
        at: Sequence[Geometry],
    ) -> None:
        """Add the outputs of a batch and the true boxes of the originals."""
        judged = np.empty(len(rows), object)
        for place, (found, truth) in enumerate(zip(self.find(output, at), truths, strict=True)):
            judged[place] = self._judged(found, truth)
        self.kept.add(rows, {"judged": judged})

    def _judged(self, found: FoundBoxes, truth: Boxes) -> Judged:
        k = len(self.labels)
        table = iou_table(found.xyxy, truth.xyxy, truth.crowd)
        answer = Answer(table, box_areas(found.xyxy), found.kinds, found.scores)
        matches = match(answer, Objects(box_areas(truth.xyxy), truth.kinds, truth.crowd), k)
        sure = found.scores >= self.threshold
        shown = take_found(found, sure)
        counts = confusion(Sides(table[sure], shown.kinds, truth.kinds, truth.crowd), k)
        return Judged(matches, counts, doubled(iou_table(shown.xyxy, shown.xyxy)))

    def merge(self, other: BoxEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)

    @property
    def rows(self) -> list[Row]:
        return self.kept.rows

    def matches(self) -> list[Matches]:
        """Return the matches of each image."""
        return [one.matches for one in self.kept["judged"]]

    def by_class(self, area: int = 0) -> list[Sorted]:
        """Return the boxes of each class in a range of areas, the most confident first."""
        return sorted_by_class(self.matches(), len(self.labels), area)

    def confusions(self) -> NDArray[np.int64]:
        """Return what was taken for what in each image, at the threshold: (images, k + 1, k + 1)."""
        return np.stack([one.confusion for one in self.kept["judged"]])

    def scores(self) -> dict[str, float]:
        """Return mAP over overlaps from 0.5 to 0.95, mAP at 0.5, and the number of images."""
        if not len(self.kept):
            return {"map": 0.0, "map50": 0.0, "pictures": 0}
        return {**_means(mean_precisions(self.by_class())), "pictures": len(self.kept)}

    def calibrate(self) -> Mapping[str, Any]:
        """Return the temperature that calibrates the confidence of boxes, and then the threshold with the best F1."""
        classes = self.by_class()
        confidence, right = confidences(classes)
        own = np.log(confidence) - np.log1p(-confidence)
        temperature = fit_label_temperature(self.temperature * own[:, None], right[:, None])
        best = float(np.clip(threshold_curve(classes).best(), 1e-6, 1 - 1e-6))
        logit = (np.log(best) - np.log1p(-best)) * self.temperature / temperature
        # Rounded down: the box that it was chosen for must stay above it.
        threshold = float(np.floor(1e4 / (1 + np.exp(-logit))) / 1e4)
        return {"temperature": temperature, "threshold": threshold}

    def per_image(self) -> Mapping[str, Array]:
        """Return F1 at the threshold, and the numbers of missed, invented and wrongly named boxes of each image."""
        tables = self.confusions()
        named = tables[:, :-1, :-1]
        right = np.trace(named, axis1=1, axis2=2)
        wrong, missed, invented = named.sum((1, 2)) - right, tables[:, :-1, -1].sum(1), tables[:, -1].sum(1)
        whole = 2 * right + 2 * wrong + missed + invented
        f1 = np.where(whole > 0, 2 * right / np.maximum(whole, 1), 1.0)
        return {"f1": f1, "missed": missed, "invented": invented, "misnamed": wrong}

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample; `counts` says how often each image is drawn."""
        return _means(mean_precisions(self.by_class(), counts))

    def drawn(self, classes: Sequence[Sorted], draws: int = DRAWS) -> Array:
        """Return the average precisions of bootstrap samples of groups: (draws, k, threshold)."""
        samples = resampled([group_key(row) for row in self.rows])
        return np.stack([mean_precisions(classes, counts) for counts in samples[:: len(samples) // draws]])

    def headline(self) -> Number:
        """Return mAP with its interval."""
        classes = self.by_class()
        drawn = [mean_of(table) for table in self.drawn(classes)]
        score = bootstrap(mean_of(mean_precisions(classes)), np.array(drawn), len(self.rows))
        return Number.of(score.to_dict(), name="mAP50-95", fact="average precision (mAP, IoU 0.5 to 0.95)")

    def result(self, scope: Scope = Scope(), fitted_on: str = VALIDATION) -> Result:
        """Return everything that reports contain; `fitted_on` names the data of threshold and temperature."""
        return report_of(self, scope, fitted_on)


def _means(table: Array) -> dict[str, float]:
    values = {"map": mean_of(table), "map50": mean_of(table[:, :1])}
    return {name: 0.0 if np.isnan(value) else value for name, value in values.items()}
