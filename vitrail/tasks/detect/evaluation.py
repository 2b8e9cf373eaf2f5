"""Evaluation of detection: average precision of boxes as COCO computes it, and what a threshold finds and misses."""

from __future__ import annotations

from typing import Any

import numpy as np

from vitrail.data.boxes import Boxes, FoundBoxes
from vitrail.metrics.box_confusion import count_duplicates, pair_boxes
from vitrail.metrics.box_matching import match_boxes
from vitrail.tasks.detect.object_evaluation import ObjectEvaluation


class BoxEvaluation(ObjectEvaluation[FoundBoxes, Boxes]):
    """Evaluation of boxes in the pixels of the originals; see `ObjectEvaluation`."""

    def one(self, found: FoundBoxes, truth: Boxes) -> dict[str, Any]:
        """Return the matches, the pairs at the threshold and the duplicates of one image."""
        matches = match_boxes(found, truth, len(self.labels))
        order = np.argsort(-found.scores, kind="stable")
        ordered = (found.xyxy[order], found.kinds[order], found.scores[order])
        pairs = pair_boxes(ordered, truth, matches, self.threshold)
        above = matches.scores >= self.threshold
        duplicates = count_duplicates(ordered[0][above], ordered[1][above])
        matches = matches._replace(partner=np.zeros(0, np.int64))
        return {"matches": matches, "pairs": pairs, "duplicates": np.array(duplicates, np.int64)}
