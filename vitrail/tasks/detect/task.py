"""Detection: the boxes of objects and their classes, each object once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrail.data.batch import Geometry
from vitrail.data.boxes import Boxes, take_found
from vitrail.layers.heads import Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses
from vitrail.tasks.detect.drawings import draw_beside, draw_found
from vitrail.tasks.detect.evaluation import BoxEvaluation
from vitrail.tasks.detect.files import ImageBoxes, write_coco, write_yolo
from vitrail.tasks.detect.head import DetectHead
from vitrail.tasks.detect.mosaic import TrueTensors
from vitrail.tasks.detect.object_task import FindObjects, true_tensors
from vitrail.tasks.detect.prediction import Objects
from vitrail.tasks.detect.targets import DetectTargets
from vitrail.tasks.detect.tiles import Tile, merge_tiles

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


class Detect(DetectTargets, FindObjects[Boxes]):
    """Detection: a box and a class for every object."""

    name = "detect"
    kind = "boxes"

    # Network

    def head(self, spec: FeatureSpec) -> DetectHead:
        """Return a projector and a decoder of the sizes in the settings."""
        return DetectHead(spec, len(self.labels), self.shape())

    def transform(self, target: Boxes, view: Any) -> Boxes:
        """Return the boxes that a view shows, in shares of the input."""
        seen = super().transform(target, view)
        height, width = view.geometry.size
        return seen._replace(xyxy=seen.xyxy / np.array([width, height, width, height], np.float64))

    def collate(self, targets: Sequence[Boxes]) -> Sequence[TrueTensors]:
        """Return for each image the boxes (n, 4), centre and sides in shares, their classes (n,), and crowds (m, 4)."""
        return [true_tensors(one) for one in targets]

    def loss(self, output: Output, targets: Sequence[TrueTensors]) -> Losses:
        """Return the losses of the classes, of the distance and of the overlap, summed over layers and proposals.

        They are sums over the objects of a batch, divided by their number and by the number of groups.
        """
        return self.matched_loss(output, targets)[0]

    # Answer

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Objects]:
        """Return the boxes above the threshold in pixels of the originals, clipped, each query with its best class."""
        least = self.settings.threshold if ask.threshold is None else ask.threshold
        answers = []
        for found, geometry in zip(self.find(output, at), at, strict=True):
            kept = int((found.scores >= least).sum())
            one = Objects(take_found(found, slice(kept)), self.labels, geometry)
            answers.append(one.without_overlap(self.settings.nms) if self.settings.nms else one)
        return answers

    def join_tiles(self, found: Sequence[Objects], tiles: Sequence[Tile], geometry: Geometry) -> Objects:
        """Return the prediction of a whole image from those of its tiles."""
        merged = merge_tiles([one.found for one in found], tiles, geometry.original)
        return Objects(merged, self.labels, geometry)

    def write_labels(self, form: str, place: Path, answers: Sequence[tuple[str, Objects]]) -> None:
        """Write predictions as labels: a COCO file, or a folder for YOLO; `answers` are names and predictions."""
        images = [ImageBoxes(name, one.geometry.original, one.found) for name, one in answers]
        if form == "coco":
            write_coco(place, images, self.labels)
        else:
            write_yolo(place, images, self.labels)

    def render(self, image: Image, prediction: Objects) -> Image:
        """Return the image with its boxes, in the colours of their classes."""
        return draw_found(image, prediction.found, self.labels)

    def compare(self, image: Image, prediction: Objects, truth: Boxes) -> Image:
        """Return truth and prediction side by side, with what is matched, missed and invented."""
        return draw_beside(image, prediction.found, truth, self.labels)

    # Evaluation

    def evaluation(self) -> BoxEvaluation:
        return BoxEvaluation(
            self.labels,
            find=self.find,
            threshold=self.settings.threshold,
            temperature=self.settings.temperature,
        )
