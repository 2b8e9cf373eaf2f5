"""Evaluation of panoptic segmentation: panoptic quality of segments, and mean IoU of their classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.instances import Instances
from vitrail.data.manifest import Row, group_key
from vitrail.data.panoptic import PanopticMap, true_map
from vitrail.metrics.box_ap import mean_of_classes
from vitrail.metrics.box_confusion import BoxPairs, tally
from vitrail.metrics.intervals import bootstrap, resampled
from vitrail.metrics.panoptic_quality import SharedPixels, count_segments, pair_segments, panoptic_quality
from vitrail.tasks.instances.evaluation import InstanceEvaluation
from vitrail.tasks.panoptic.report import FACTS, report_of
from vitrail.tasks.result import VALIDATION, Gathered, Number, Result, Scope
from vitrail.tasks.segment.overlap import mean_of, ratio

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

Truth = tuple[Instances, NDArray[np.uint8]]
"""The true objects of an image, numbered among things, and the class of each pixel among all (height, width)."""

QUALITIES = ("pq", "sq", "rq")


class PanopticEvaluation:
    """Evaluation in the pixels of the originals, as COCO's panoptic evaluation counts; no score has a threshold.

    `segments` returns the panoptic map of each image of a batch; `things` (k,) tells which classes are things, `void`
    which value of a true class map is none. Classes without a segment, true or predicted, are left out of every mean.
    `objects` is the evaluation of things alone, which fits their threshold.
    """

    main, unit = "pq", "%"

    def __init__(
        self,
        labels: Sequence[str],
        things: Sequence[bool] | Flags,
        segments: Callable[[Mapping[str, Tensor], Sequence[Geometry]], list[PanopticMap]],
        void: int = 255,
        objects: InstanceEvaluation | None = None,
    ) -> None:
        self.labels, self.segments, self.void = tuple(labels), segments, void
        self.things: Flags = np.asarray(things, np.bool_)
        self.objects = objects
        self.kept = Gathered()

    def update(
        self,
        rows: Sequence[Row],
        output: Mapping[str, Tensor],
        truths: Sequence[Truth],
        at: Sequence[Geometry],
    ) -> None:
        """Add the outputs of a batch and the true objects and classes of the originals."""
        found = self.segments(output, at)
        images = [self._one(one, *truth) for one, truth in zip(found, truths, strict=True)]
        pairs = np.empty(len(images), object)
        for place, image in enumerate(images):
            pairs[place] = image["pairs"]
        counted = {name: np.stack([image[name] for image in images]) for name in ("counts", "pixels")}
        self.kept.add(rows, {"pairs": pairs, **counted})
        if self.objects is not None:
            self.objects.update(rows, output, [things for things, _ in truths], at)

    def _one(self, found: PanopticMap, objects: Instances, class_map: NDArray[np.uint8]) -> dict[str, Any]:
        """Return the pairs of segments of an image, their counts by class, and pixels by class."""
        k, true = len(self.labels), true_map(objects, class_map, self.things, self.void)
        shared = SharedPixels.of((true.ids, true.kinds), (found.ids, found.kinds))
        pairs = pair_segments(shared, true.crowds, k)
        scores = np.concatenate([found.scores, [0.0]])[pairs.found]
        kept = BoxPairs(pairs.truth, pairs.answer, scores)
        return {"pairs": kept, "counts": count_segments(pairs, k), "pixels": shared.by_class(k)}

    def merge(self, other: PanopticEvaluation) -> None:
        """Add the images of another evaluation and sort all by id."""
        self.kept.merge(other.kept)
        if self.objects is not None and other.objects is not None:
            self.objects.merge(other.objects)

    @property
    def rows(self) -> list[Row]:
        return self.kept.rows

    @property
    def pairs(self) -> list[BoxPairs]:
        """The pairs of true and predicted segments of each image."""
        pairs: list[BoxPairs] = self.kept["pairs"].tolist()
        return pairs

    @property
    def counts(self) -> Array:
        """Summed IoU, right, invented and missed segments of each class in each image: (images, k, 4)."""
        return self.kept["counts"].reshape(-1, len(self.labels), 4)

    def scores(self) -> dict[str, float]:
        """Return PQ, SQ, RQ, mean IoU and the number of images; an output alone has no loss."""
        told = self.resample(np.ones(len(self.kept)))
        named = {name: float(np.nan_to_num(told[name])) for name in (*QUALITIES, "miou")}
        return {**named, "pictures": len(self.kept)}

    def calibrate(self) -> Mapping[str, Any]:
        """Return the temperature and the threshold of things, if they are evaluated; areas have none."""
        return {} if self.objects is None else self.objects.calibrate()

    def tallies(self) -> Counts:
        """Return right, missed, invented and mistaken segments of each image: (images, 4)."""
        return tally(self.pairs, len(self.labels))

    def per_image(self) -> Mapping[str, Array]:
        """Return PQ, mean IoU, and the numbers of missed, invented and mistaken segments of each image.

        PQ is the mean of the classes in the image; 1 for an image without segments where none is predicted.
        """
        pq = mean_of_classes(panoptic_quality(self.counts).pq)
        missed, invented, mistaken = self.tallies()[:, 1:].T.astype(np.float64)
        named = {"missed": missed, "invented": invented, "mistaken": mistaken}
        pixels = self.kept["pixels"].reshape(-1, len(self.labels), 3)
        return {"pq": np.where(np.isfinite(pq), pq, 1.0), "miou": _mean_iou(pixels), **named}

    def resample(self, counts: Array) -> Mapping[str, float]:
        """Return the scores of a bootstrap sample; each segment counts as often as its image."""
        return {name: float(values[0]) for name, values in self.drawn(np.asarray(counts)[None]).items()}

    def drawn(self, draws: Array) -> dict[str, Array]:
        """Return the scores of bootstrap samples by name: draws (draws, images) -> (draws,).

        Those of things and of stuff alone are "pq_things", "pq_stuff" and so on; NaN without such a class.
        """
        scores: dict[str, Array] = {}
        quality = self.drawn_quality(draws)
        of = {"": np.ones_like(self.things), "_things": self.things, "_stuff": ~self.things}
        for suffix, own in of.items():
            for name, values in zip(QUALITIES, quality, strict=True):
                scores[f"{name}{suffix}"] = mean_of_classes(np.where(own, values, np.nan))
        pixels = np.tensordot(draws, self.kept["pixels"].reshape(-1, len(self.labels), 3), 1)
        return {**scores, "miou": _mean_iou(pixels)}

    def drawn_quality(self, draws: Array) -> tuple[Array, Array, Array]:
        """Return PQ, SQ and RQ of each class in bootstrap samples: draws (draws, images) -> (draws, k) each."""
        return panoptic_quality(np.tensordot(draws, self.counts, 1))

    def overlap(self) -> Array:
        """Return the IoU of the pixels of each class: (k,); NaN for classes that no truth shows."""
        pixels = self.kept["pixels"].reshape(-1, len(self.labels), 3).sum(0)
        return np.where(pixels[:, 1] > 0, _iou(pixels), np.nan)

    def headline(self) -> Number:
        """Return PQ with its interval."""
        draws = resampled([group_key(row) for row in self.rows])
        drawn = mean_of_classes(self.drawn_quality(draws)[0])
        score = bootstrap(self.scores()["pq"], drawn, len(self.rows))
        return Number.of(score.to_dict(), *FACTS["pq"])

    @property
    def quick_headline(self) -> bool:
        """Whether PQ has an interval: it takes sums of counts alone."""
        return len(self.kept) > 0

    def result(self, scope: Scope = Scope(), fitted_on: str = VALIDATION) -> Result:
        """Return everything that reports contain; nothing is fitted, so that `fitted_on` has no effect."""
        return report_of(self, scope)


def _iou(pixels: NDArray[Any]) -> Array:
    """Return the IoU of each class from the counts of `SharedPixels.by_class`: (…, k, 3) -> (…, k)."""
    right, true, answer = np.moveaxis(pixels, -1, 0)
    return ratio(right, true + answer - right)


def _mean_iou(pixels: NDArray[Any]) -> Array:
    """Return the mean IoU of the classes that the truth shows: (…, k, 3) -> (…)."""
    return mean_of(_iou(pixels), pixels[..., 1] > 0)
