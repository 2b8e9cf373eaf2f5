"""Evaluation of instance segmentation: average precision of masks as COCO computes it, and that of their boxes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vitrail.data.boxes import take_found
from vitrail.data.instances import FoundInstances, Instances, mask_areas, mask_overlaps
from vitrail.metrics.box_ap import BoxSet, average_precision
from vitrail.metrics.box_confusion import count_same_place, pair_objects
from vitrail.metrics.box_matching import Shared, match_boxes, match_objects
from vitrail.tasks.detect.object_evaluation import ObjectEvaluation
from vitrail.tasks.detect.report import ObjectReport
from vitrail.tasks.instances.boundaries import boundary_ious
from vitrail.tasks.instances.report import InstanceReport

Array = NDArray[np.float64]


class InstanceEvaluation(ObjectEvaluation[FoundInstances, Instances]):
    """Evaluation of masks in the pixels of the originals; see `ObjectEvaluation`.

    Everything at the threshold, and the calibration, are for masks that overlap; "map" and "map50" are those of boxes.
    Small, medium and large are areas of masks. Masks are compared when they come, and none is kept.
    """

    prefix: ClassVar[str] = "mask_"
    nouns: ClassVar[tuple[str, str]] = ("object", "objects")
    report: ClassVar[type[ObjectReport]] = InstanceReport
    main = "mask_map"

    def one(self, found: FoundInstances, truth: Instances) -> dict[str, Any]:
        """Return the matches of masks and of boxes, the pairs, the duplicates and the quality of one image."""
        found, crowd = _sorted(found), truth.boxes.crowd
        overlaps = mask_overlaps(found.masks, truth.masks, crowd)
        shared = Shared(overlaps, mask_areas(found.masks), mask_areas(truth.masks))
        matches = match_objects(found.boxes[1:], truth.boxes[1:], shared, len(self.labels))
        boxes = match_boxes(found.boxes, truth.boxes, len(self.labels))
        above = int((matches.scores >= self.threshold).sum())
        first = found.masks[:above]
        same = mask_overlaps(first, first, np.zeros(above, np.bool_))
        none = np.zeros(0, np.int64)
        return {
            "matches": matches._replace(partner=none),
            "box_matches": boxes._replace(partner=none),
            "pairs": pair_objects(overlaps, truth.boxes[1:], matches, self.threshold),
            "duplicates": np.array(count_same_place(same, matches.kinds[:above]), np.int64),
            "quality": _quality(found, truth, overlaps, matches.partner[:above]),
        }

    @property
    def boxes(self) -> BoxSet:
        """The objects of all images, matched by their boxes."""
        return self.table("box_matches")

    def scores(self) -> dict[str, float]:
        """Return mask mAP (IoU 0.5 to 0.95), mask mAP at IoU 0.5, mAP of the boxes, and the number of images."""
        boxes = float(np.nan_to_num(average_precision(self.boxes).mean()[0]))
        scores = super().scores()
        pictures = scores.pop("pictures")
        return {**scores, "map": boxes, "pictures": pictures}

    def drawn(self, draws: Array) -> dict[str, Array]:
        """Return the scores of bootstrap samples by name: draws (draws, images) -> (draws,)."""
        boxes = average_precision(self.boxes, draws)
        pairs, *sums = (draws @ self.kept["quality"]).T
        quality = [np.divide(one, pairs, out=np.full(len(draws), np.nan), where=pairs > 0) for one in sums]
        own = {"map": boxes.mean(), "map50": boxes.at(0), "mask_iou": quality[0], "boundary_iou": quality[1]}
        return super().drawn(draws) | own


def _sorted(found: FoundInstances) -> FoundInstances:
    """Return the objects with the highest score first; equal scores keep their order."""
    order = np.argsort(-found.boxes.scores, kind="stable")
    return FoundInstances(take_found(found.boxes, order), tuple(found.masks[place] for place in order))


def _quality(found: FoundInstances, truth: Instances, overlaps: Array, partner: NDArray[np.int64]) -> Array:
    """Return the number of right objects above the threshold, the sum of their IoU and that of their boundary IoU."""
    places = np.flatnonzero(partner >= 0)
    true = partner[places]
    edges = boundary_ious([found.masks[i] for i in places], [truth.masks[i] for i in true])
    return np.array([len(places), overlaps[places, true].sum(), edges.sum()], np.float64)
