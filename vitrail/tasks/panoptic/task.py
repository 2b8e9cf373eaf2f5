"""Panoptic segmentation: every pixel has a class, and every thing is an object of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.core.errors import SettingError
from vitrail.data.batch import Batch, Geometry
from vitrail.data.instances import FoundInstances
from vitrail.data.panoptic import PanopticMap, Scene, true_map
from vitrail.data.truth import Truth
from vitrail.layers.heads import Head, Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import FINGERPRINT, Ask, Asked, InOriginal, Losses, Task, within
from vitrail.tasks.freezing import frozen_at_first
from vitrail.tasks.instances.prediction import Shapes
from vitrail.tasks.instances.task import SegmentInstances
from vitrail.tasks.panoptic.drawings import draw_beside, draw_segments
from vitrail.tasks.panoptic.evaluation import PanopticEvaluation
from vitrail.tasks.panoptic.files import write_panoptic
from vitrail.tasks.panoptic.head import PanopticHead
from vitrail.tasks.panoptic.merging import Rules, of_queries, things_first, things_of
from vitrail.tasks.panoptic.prediction import Segments
from vitrail.tasks.panoptic.settings import PanopticSettings
from vitrail.tasks.panoptic.targets import PanopticTargets, check_things
from vitrail.tasks.result import Exports
from vitrail.tasks.segment.areas import Areas
from vitrail.tasks.segment.head import PixelHead
from vitrail.tasks.segment.targets import frequency_weights
from vitrail.tasks.segment.task import Segment

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from vitrail.data.manifest import Row

MEASURED = 200
"""Images whose areas are measured for the weights of rare classes, at most."""


class Panoptic(Task[Scene, Segments], PanopticTargets):
    """Objects with masks for things, and the class of every pixel, on the same features.

    Both are trained as in their own tasks; their answers are merged into one map of segments.
    """

    name = "panoptic"
    kind = "panoptic"
    Settings = PanopticSettings
    outputs: Mapping[str, tuple[str, ...]] = {
        **SegmentInstances.outputs, "areas": ("class", "area row", "area col")
    }  # fmt: skip
    columns = ("class", "number", "kind", "confidence", "pixels", "share")
    exports = Exports("image-segmentation", ("pq", "sq", "rq"))
    picture_outputs = (*SegmentInstances.picture_outputs, *Segment.picture_outputs)
    takes_threshold = True
    begins_from = ("panoptic", "instances", "detect")
    head_settings = (*SegmentInstances.head_settings, "pixel_width", "stem")
    agreement = "things are the same, and so is the class of at least 99.5 % of the pixels"

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        self.head_rate = self.settings.head_rate
        check_things(self.truth)
        own: PanopticSettings = self.settings
        self.shapes = SegmentInstances(Truth("instances", self.truth.things), own.of_things())
        self.areas = Segment(Truth("mask", self.labels), own.of_areas())
        self.is_thing = np.array([name in self.truth.things for name in self.labels])
        self.thing_kinds = tuple(self.labels.index(name) for name in self.truth.things)

    # Network

    def head(self, spec: FeatureSpec) -> Head:
        """Return the heads of both parts, which read the same maps."""
        pixels = self.areas.head(spec)
        assert isinstance(pixels, PixelHead)
        return PanopticHead(self.shapes.head(spec), pixels)

    def learn(self, rows: Sequence[Row], root: Path) -> Mapping[str, Any]:
        """Return what is not set of queries, groups and anchor, and the weights of rare classes."""
        found = dict(self.shapes.learn(self.rows_of_things(rows), root))
        if self.settings.class_weights is None and self.settings.weigh and rows:
            some = rows[:: max(1, -(-len(rows) // MEASURED))]
            counts = [np.bincount(self.read(row, root).areas.ravel(), minlength=256) for row in some]
            weights = frequency_weights(np.array(counts)[:, : len(self.labels)])
            found["class_weights"] = tuple(round(float(one), 4) for one in weights)
        return found

    def unfit(self, rows: Sequence[Row]) -> Sequence[str]:
        """Return a sentence if an image has more things than queries."""
        return self.shapes.unfit(self.rows_of_things(rows))

    def transform(self, target: Scene, view: Any) -> Scene:
        """Return the things and the classes of pixels that a view shows; boxes in shares of the input."""
        return Scene(self.shapes.transform(target.things, view), self.areas.transform(target.areas, view))

    def collate(self, targets: Sequence[Scene]) -> Mapping[str, Any]:
        """Return the truths of both parts by name, as their tasks collate them."""
        return {
            "things": self.shapes.collate([one.things for one in targets]),
            "areas": self.areas.collate([one.areas for one in targets]),
        }

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the loss; the encoder is frozen in the first `frozen` share of a training, then its first blocks."""
        own = self.settings
        with frozen_at_first(network, own.frozen, own.last_blocks, progress):
            return super().training_loss(network, batch, rng, progress)

    def loss(self, output: Output, targets: Mapping[str, Any]) -> Losses:
        """Return the losses of both parts."""
        areas = self.areas.loss({"map": output["areas"]}, targets["areas"]).parts
        weighed = {name: self.settings.area_weight * part for name, part in areas.items()}
        return Losses({**self.shapes.loss(output, targets["things"]).parts, **weighed})

    def weights(self, targets: Mapping[str, Any]) -> Mapping[str, float]:
        """Return the denominators of both parts."""
        return {**self.shapes.weights(targets["things"]), **self.areas.weights(targets["areas"])}

    # Answer

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Segments]:
        """Return the segments of the originals; things below the threshold are left out."""
        areas = self.areas.decode({"map": output["areas"]}, at, Ask())
        found = (
            self._of_queries(output, at, ask)
            if self.by_queries
            else self._things_first(output, areas, at, ask)
        )
        return [
            Segments(one, self.labels, self.truth.things, geometry, self._shapes(things, geometry), other)
            for (one, things), other, geometry in zip(found, areas, at, strict=True)
        ]

    def _shapes(self, things: FoundInstances, geometry: Geometry) -> Shapes:
        return Shapes(things.boxes, self.truth.things, geometry, masks=things.masks)

    @property
    def by_queries(self) -> bool:
        """Whether the queries find all classes, and not things alone."""
        return bool(self.settings.merge == "queries")

    def _things_first(
        self, output: Output, areas: Sequence[Areas], at: Sequence[Geometry], ask: Ask
    ) -> list[tuple[PanopticMap, FoundInstances]]:
        shapes = [one.instances for one in self.shapes.decode(output, at, ask) if isinstance(one, Shapes)]
        return [
            (things_first(one, other.mask, self.rules), one) for one, other in zip(shapes, areas, strict=True)
        ]

    def _of_queries(
        self, output: Output, at: Sequence[Geometry], ask: Ask
    ) -> list[tuple[PanopticMap, FoundInstances]]:
        least = self.settings.threshold if ask.threshold is None else ask.threshold
        names = ("logits", "masks")
        maps = [
            of_queries({name: output[name][place] for name in names}, geometry, least, self.rules)
            for place, geometry in enumerate(at)
        ]
        return [(one, things_of(one, self.rules)) for one in maps]

    @property
    def rules(self) -> Rules:
        """How things and areas are merged."""
        return Rules(self.thing_kinds, len(self.labels), self.settings.overlap, self.settings.least_area)

    def _of_things(self, output: Output) -> Output:
        """Return the outputs with the logits of things alone."""
        if not self.by_queries:
            return output
        return {**output, "logits": output["logits"][..., list(self.thing_kinds)]}

    def segments(self, output: Mapping[str, Tensor], at: Sequence[Geometry]) -> list[PanopticMap]:
        """Return the maps of segments of the originals."""
        return [one.found for one in self.decode(dict(output), at, Ask())]

    def write_labels(self, form: str, place: Path, answers: Sequence[tuple[str, Segments]]) -> None:
        """Write predictions as COCO's panoptic segments: a JSON file, and a folder of images beside it.

        Raises:
            SettingError: another form, which has no place for areas.
        """
        if form != "coco":
            raise SettingError(f"There are no panoptic labels of the form {form}. Use --coco FILE.")
        write_panoptic(place, [(name, one.found) for name, one in answers], self.labels, self.is_thing)

    def choices(self, prediction: Segments) -> Sequence[str]:
        """Return the objects and the classes that can be explained; all classes if nothing was found."""
        return prediction.called() or self.labels

    def focus(self, prediction: Segments, choice: str) -> Segments:
        """Return the prediction for an object ("car #2"), a class, a pixel or a region."""
        return prediction.about(choice)

    def asked(self, prediction: Segments, output: Output) -> Asked | None:
        """Return the object, pixel or region to explain."""
        part = prediction.explained
        if isinstance(part, Areas):
            return self.areas.asked(part, {"map": output["areas"]})
        return None if part is None else self.shapes.asked(part, self._of_things(output))

    def score(self, output: Output, prediction: Segments) -> Tensor:
        """Return the number that is explained: of an object as in detection, of a class as in segmentation: (b,)."""
        part = prediction.explained or prediction.about(self.choices(prediction)[0]).explained
        if isinstance(part, Areas):
            return self.areas.score({"map": output["areas"]}, part)
        assert part is not None
        return self.shapes.score(self._of_things(output), part)

    def render(self, image: Image, prediction: Segments) -> Image:
        """Return the image with its segments in the colours of their classes."""
        return draw_segments(image, prediction.found, self.labels, self.is_thing)

    def compare(self, image: Image, prediction: Segments, truth: Scene) -> Image:
        """Return truth and prediction side by side."""
        true = true_map(truth.things, truth.areas, self.is_thing, self.areas.VOID)
        return draw_beside(image, prediction.found, true, self.labels, self.is_thing)

    def glance(self, image: Image, output: Output, geometry: Geometry, truth: Scene) -> Image:
        """Return truth and prediction side by side, for pages shown while a training runs."""
        (prediction,) = self.decode(output, [geometry], Ask())
        return self.compare(image, prediction, truth)

    # Proof

    def fingerprint(self, output: Output) -> Tensor:
        """Return the fingerprints of both parts: (b, m)."""
        parts = (
            self.shapes.fingerprint(self._of_things(output)),
            self.areas.fingerprint({"map": output["areas"]}),
        )
        return within_both(*parts)

    def settled(self, output: Output) -> Tensor:
        """Return for which images the choice of queries does not hang on the last bits of numbers: bool (b,)."""
        return self.shapes.settled(output)

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return for which images both parts agree: bool (b,)."""
        things = self.shapes.agree(self._of_things(one), self._of_things(other), tolerance)
        return things & self.areas.agree({"map": one["areas"]}, {"map": other["areas"]}, tolerance)

    def in_image(self, output: Output, onto: InOriginal) -> Output:
        """Return the objects and the class of each pixel of the image, for exported graphs."""
        areas = self.areas.in_image({"map": output["areas"]}, onto)
        return {**self.shapes.in_image(self._of_things(output), onto), **areas}

    # Evaluation

    def evaluation(self) -> PanopticEvaluation:
        objects = None if self.by_queries else self.shapes.evaluation()
        return PanopticEvaluation(self.labels, self.is_thing, self.segments, self.areas.VOID, objects)


def within_both(things: Tensor, areas: Tensor) -> Tensor:
    """Return two fingerprints in one, each in half of the numbers."""
    return torch.cat([within(things, FINGERPRINT // 2), within(areas, FINGERPRINT // 2)], 1)
