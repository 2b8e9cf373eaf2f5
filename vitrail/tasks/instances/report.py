"""What a report says of objects with masks: the report of detection, with the scores of masks and of boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from vitrail.metrics.box_ap import average_precision
from vitrail.metrics.intervals import bootstrap
from vitrail.tasks.detect.report import COLUMNS, ObjectReport
from vitrail.tasks.detect.report import FACTS as OF_BOXES
from vitrail.tasks.result import Cell, Column, Number, Scope

if TYPE_CHECKING:
    from vitrail.tasks.instances.evaluation import InstanceEvaluation

FACTS = {
    "mask_map": ("mask mAP50-95", "mean average precision of masks, IoU 0.50 to 0.95"),
    "mask_map50": ("mask mAP50", "mean average precision of masks at IoU 0.5"),
    "mask_map75": ("mask mAP75", "mean average precision of masks at IoU 0.75"),
    "mask_map_small": ("mask mAP50-95, small", "mask mAP50-95 of objects up to 32² px"),
    "mask_map_medium": ("mask mAP50-95, medium", "mask mAP50-95 of objects from 32² to 96² px"),
    "mask_map_large": ("mask mAP50-95, large", "mask mAP50-95 of objects from 96² px"),
    "mask_ar": ("mask AR", ""),
    "map": ("box mAP50-95", "mean average precision of boxes, IoU 0.50 to 0.95"),
    "map50": ("box mAP50", "mean average precision of boxes at IoU 0.5"),
    "mask_iou": ("mask IoU", "mean IoU of the masks of right answers, at a score of {0:.3g}"),
    "boundary_iou": (
        "boundary IoU",
        "mean boundary IoU of the masks of right answers, at a score of {0:.3g}",
    ),
    "precision": OF_BOXES["precision"],
    "recall": ("recall", "of the true objects are found, at a score of {0:.3g}"),
    "f1": OF_BOXES["f1"],
}
"""Score → its name in tables and its text on pages, with the threshold as {0}."""


class InstanceReport(ObjectReport):
    """The scores of masks and of boxes with their intervals, as a sentence, tables and sections."""

    facts: ClassVar[Mapping[str, tuple[str, str]]] = FACTS
    columns: ClassVar[tuple[Column, ...]] = (
        *(one._replace(name="objects") if one.name == "boxes" else one for one in COLUMNS),
        Column("AP50-95 of boxes", spread=True),
    )

    def __init__(self, evaluation: InstanceEvaluation, scope: Scope) -> None:
        super().__init__(evaluation, scope)
        self.box_point = average_precision(evaluation.boxes).precision[0].mean(1)
        self.box_drawn = average_precision(evaluation.boxes, self.draws).precision.mean(2)

    def more(self, kind: int, images: int) -> tuple[Cell, ...]:
        """Return the average precision of the boxes of a class."""
        score = bootstrap(float(self.box_point[kind]), self.box_drawn[:, kind], images)
        return (Number.of(score.to_dict()),)
