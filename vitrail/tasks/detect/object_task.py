"""What tasks have in common that find objects with queries: matching, scores, explanations and proofs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.data.batch import Batch, Geometry
from vitrail.data.boxes import Boxes, FoundBoxes, make_found
from vitrail.data.labels import is_no_class
from vitrail.data.truth import Truth
from vitrail.data.view import around, boxes_in_original, corners, points_in_input
from vitrail.layers.boxes import overlaps, to_centre, to_corners
from vitrail.layers.heads import Output
from vitrail.layers.query_decoder import Answers, DecoderShape
from vitrail.tasks.base import Ask, Asked, InOriginal, Losses, PictureOutput, Task, within
from vitrail.tasks.detect.agreement import SAME, Level, partners
from vitrail.tasks.detect.box_findings import MOST
from vitrail.tasks.detect.loss import Sums, Truths, matched, summed
from vitrail.tasks.detect.mosaic import TrueTensors, mosaic
from vitrail.tasks.detect.prediction import Objects
from vitrail.tasks.detect.settings import DetectSettings
from vitrail.tasks.detect.targets import ObjectTargets
from vitrail.tasks.detect.tiles import Tile, tiles_of
from vitrail.tasks.freezing import frozen_at_first
from vitrail.tasks.result import Exports
from vitrail.tasks.set_matching import Pairs

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from vitrail.data.manifest import Row

CORNERS, OVERLAP = 5.0, 2.0
"""Weights of the losses of distance and overlap; that of the class is 1 (arXiv:2406.03459, §4.1)."""

USUAL = 100
"""The fewest queries that are chosen from the data; the most are `MOST`."""

BUDGET, MOST_GROUPS = 200, 5
"""Queries of all groups while training, about, and most groups: more learned no quicker (docs/benchmarks.md)."""

NEARLY = 2e-5
"""Proposals whose logits differ by less may change places where another program rounds differently."""

ANCHOR = 0.05
"""The side that boxes start from, in shares of the input, where the data do not say it."""


T = TypeVar("T")


class FindObjects(Task[T, Objects], ObjectTargets[T]):
    """What tasks have in common whose queries are matched to objects one to one, so that every object is answered once.

    Losses: classes whose target is the overlap, L1 and generalised IoU, of every layer and of the proposals.
    """

    Settings = DetectSettings
    outputs: Mapping[str, tuple[str, ...]] = {
        "boxes": ("query", "side"), "logits": ("query", "class"), "proposals": ("cell",)
    }  # fmt: skip
    columns: tuple[str, ...] = ("class", "number", "confidence", "left", "top", "right", "bottom")
    exports = Exports("object-detection", ("map", "map50"))
    picture_outputs = (
        PictureOutput(
            "found",
            "float32",
            "a row for each query, in no order: left, top, right, bottom in pixels of the original image, confidence, "
            "and the index of the class in labels; leave out rows below the threshold: (query, 6)",
        ),
    )
    meanings: Mapping[str, str] = MappingProxyType(
        {
            "boxes": "the box of each query: x and y of the centre, width and height in shares of the network's input",
            "logits": "a logit for each class; the largest sigmoid, at the temperature of the model, is the confidence",
            "proposals": "the largest logit that each cell proposes, before any cell becomes a query; for comparisons",
        }
    )
    proof_weights: tuple[int, float] = (2, 1e-12)
    """In a proof queries count by this power of their confidence, and means are divided by at least this sum."""
    takes_threshold = True
    finds_objects = True
    begins_from = ("detect", "instances", "panoptic")
    head_settings = ("width", "layers", "hidden", "points", "anchor", "margin")
    agreement = f"sets of boxes are the same (class, and corners to {SAME:g} of a side)"

    def __init__(self, truth: Truth | Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(truth, settings)
        self.head_rate = self.settings.head_rate

    # Network

    def shape(self) -> DecoderShape:
        """Return the sizes of the decoder; what the settings leave open is that of an untrained network."""
        own = self.settings
        queries = own.queries or USUAL
        groups = own.groups or groups_for(queries)
        anchor = own.anchor or ANCHOR
        return DecoderShape(
            own.width,
            own.layers,
            queries,
            groups,
            max(1, own.width // 32),
            own.points,
            own.hidden,
            anchor,
            own.margin,
        )

    def learn(self, rows: Sequence[Row], root: Path) -> Mapping[str, Any]:
        """Return what is not set of queries (twice the most boxes of an image), groups and anchor."""
        own = self.settings
        queries = own.queries or min(MOST, max(USUAL, 2 * self.most_objects(rows)))
        groups = own.groups or groups_for(queries)
        anchor = own.anchor or self.usual_side(rows, root) or ANCHOR
        found = {"queries": queries, "groups": groups, "anchor": anchor}
        return {name: value for name, value in found.items() if getattr(own, name) is None}

    def unfit(self, rows: Sequence[Row]) -> list[str]:
        """Return a sentence if an image has more objects than queries: each query answers one."""
        queries, most = self.shape().queries, self.most_objects(rows)
        if most <= queries:
            return []
        return [
            f"An image has {most:,} objects, and this model answers at most {queries:,} (queries): the others are "
            f"missed. Cut the images into parts, or ask for more: --set queries={most}"
        ]

    def prepare(self, batch: Batch[Any], rng: np.random.Generator, progress: float) -> Batch[Any]:
        """Return the batch with a share of mosaics in the first half of a training."""
        share = self.settings.mosaic if progress < 0.5 else 0.0
        return mosaic(batch, rng, share) if share else batch

    def training_loss(
        self, network: nn.Module, batch: Batch[Any], rng: np.random.Generator, progress: float
    ) -> Losses:
        """Return the loss; the encoder is frozen in the first `frozen` share of a training, then its first blocks."""
        own = self.settings
        with frozen_at_first(network, own.frozen, own.last_blocks, progress):
            return super().training_loss(network, batch, rng, progress)

    def matched_loss(
        self, output: Output, targets: Sequence[TrueTensors]
    ) -> tuple[Losses, list[list[Pairs]]]:
        """Return the losses, and for each layer and image which query learns which object."""
        device = output["logits"].device
        truths = [Truths(*(part.to(device) for part in one[:3])) for one in targets]
        every, groups = _every_answer(output)
        pairs = [matched(answers, truths, groups) for answers in every]
        several = [summed(answers, truths, one) for answers, one in zip(every, pairs, strict=True)]
        sums = Sums(*(torch.stack(part).sum() for part in zip(*several, strict=True)))
        counts = self.weights(targets)
        classes, boxes = (max(1.0, counts[name]) * groups for name in ("classes", "corners"))
        parts = {
            "classes": sums.classes / classes,
            "corners": CORNERS * sums.corners / boxes,
            "overlap": OVERLAP * sums.overlap / boxes,
        }
        return Losses(parts), pairs

    def weights(self, targets: Sequence[TrueTensors]) -> Mapping[str, float]:
        """Return the number of objects; for the classes an image without objects counts as one."""
        numbers = [len(one[1]) for one in targets]
        objects = float(sum(numbers))
        return {
            "classes": float(sum(max(1, one) for one in numbers)), "corners": objects, "overlap": objects
        }  # fmt: skip

    # Answer

    def find(self, output: Mapping[str, Tensor], at: Sequence[Geometry]) -> list[FoundBoxes]:
        """Return all boxes in pixels of the originals, the most confident first; none is left out for its score."""
        scores, kinds = (output["logits"].float() / self.settings.temperature).sigmoid().max(-1)
        found = []
        for boxes, score, kind, geometry in zip(output["boxes"], scores, kinds, at, strict=True):
            height, width = geometry.size
            scale = boxes.new_tensor([width, height, width, height]).float()
            xyxy = boxes_in_original(geometry, (to_corners(boxes.float()) * scale).double().cpu().numpy())
            found.append(make_found(xyxy, kind.cpu().numpy(), score.cpu().numpy()))
        return found

    def tiles(self, size: tuple[int, int], side: int) -> list[Tile]:
        """Return square tiles (left, top, right, bottom) that cover an image of (height, width) and overlap."""
        return tiles_of(size, side)

    def choices(self, prediction: Objects) -> Sequence[str]:
        """Return what the boxes are called, "platelet #1", the most confident first; the classes if there are none."""
        return prediction.called() or sorted(self.labels, key=is_no_class)

    def focus(self, prediction: Objects, choice: str) -> Objects:
        """Return the prediction for a box ("platelet #3") or a place ("platelet in 10,20,90,80")."""
        if not len(prediction) and choice in self.labels:
            return prediction.somewhere(choice)
        return prediction.about(choice)

    def asked(self, prediction: Objects, output: Output) -> Asked | None:
        """Return the box to explain, and the same place for the other classes by probability."""
        if prediction.box is None:
            return None
        name, box = prediction.target()
        place = ",".join(f"{side:.0f}" for side in box)
        fit = self._fit(output, prediction)[0]
        order = [self.labels[i] for i in fit.amax(0).argsort(descending=True, stable=True).tolist()]
        others = tuple(f"{one} in {place}" for one in order if one != name)
        best = order[0] if order else name
        heading = f"Why this box is {name}" if best == name else f"Evidence for {name} in this box"
        return Asked(box, f"{name} in {place}", f"{best} in {place}", heading, others)

    def score(self, output: Output, prediction: Objects) -> Tensor:
        """Return how well the best query answers the box to explain: IoU times the probability of its class, (b,).

        A query is found by its box, never by its number (D-RISE, Petsiuk et al. 2021, arXiv:2006.03204, eq. 2).
        """
        name, _ = prediction.target()
        return self._fit(output, prediction)[..., self.labels.index(name)].amax(1)

    def _fit(self, output: Output, prediction: Objects) -> Tensor:
        """Return the overlap of each query with the box to explain times its probability of each class: (b, q, k)."""
        _, box = prediction.target()
        geometry = prediction.geometry
        wanted = around(points_in_input(geometry, corners(np.array([box]))))[0]
        height, width = geometry.size
        share = output["boxes"].new_tensor((wanted / [width, height, width, height]).tolist())
        iou = overlaps(to_corners(output["boxes"].float()), share.float())[0]
        fit: Tensor = iou[..., None] * (output["logits"].float() / self.settings.temperature).sigmoid()
        return fit

    @abstractmethod
    def compare(self, image: Image, prediction: Objects, truth: T) -> Image:
        """Return truth and prediction side by side, with what is matched, missed and invented."""

    def glance(self, image: Image, output: Output, geometry: Geometry, truth: T) -> Image:
        """Return truth and prediction side by side, for pages shown while a training runs."""
        (prediction,) = self.decode(output, [geometry], Ask())
        return self.compare(image, prediction, truth)

    # Proof

    def fingerprint(self, output: Output) -> Tensor:
        """Return what the cells propose, before any is selected, and what the queries found, whatever their order.

        Of every class: its largest probability, and the mean box of its queries, weighted by a power of their own.
        """
        p = output["logits"].float().sigmoid()
        power, least = self.proof_weights
        weight = (p**power)[..., None]  # (b, q, k, 1)
        mean = (weight * output["boxes"].float()[:, :, None]).sum(1) / weight.sum(1).clamp(min=least)
        summary = torch.cat([p.amax(1)[..., None], mean], -1).flatten(1)
        return torch.cat([within(summary, 1024), within(output["proposals"].float().sigmoid(), 3072)], 1)

    def agree(self, one: Output, other: Output, tolerance: float = 0.0) -> Tensor:
        """Return for which images each confident box of one output is in the other too, with its class: bool (b,)."""
        ways = ((one, other), (other, one))
        return torch.stack([self.contained(*way, tolerance) for way in ways]).all(0)

    def settled(self, output: Output) -> Tensor:
        """Return for which images the choice of queries does not hang on the last bits of two proposals: bool (b,).

        Proposals get their queries by rank, so two that are nearly equal may be exchanged by another program.
        """
        count = output["boxes"].shape[1] + 1
        if output["proposals"].shape[1] < count:
            return output["boxes"].new_ones(len(output["boxes"]), dtype=torch.bool)
        ranked = output["proposals"].float().topk(count, dim=1).values
        steady: Tensor = (ranked[:, :-1] - ranked[:, 1:]).amin(1) > NEARLY
        return steady

    def contained(self, one: Output, other: Output, tolerance: float) -> Tensor:
        """Return for which images each box of `one` that is clearly above the threshold is in `other`: bool (b,)."""
        return partners(one, other, self.level, tolerance).contained

    @property
    def level(self) -> Level:
        """From which confidence a box counts."""
        return Level(self.settings.threshold, self.settings.temperature)

    def in_image(self, output: Output, onto: InOriginal) -> Output:
        """Return corners in pixels of the image, confidence and class of each query, for exported graphs: (b, q, 6)."""
        score, kind = (output["logits"].float() / self.settings.temperature).sigmoid().max(-1)
        boxes = onto.boxes(to_corners(output["boxes"].float()))
        return {"found": torch.cat([boxes, score[..., None], kind[..., None].float()], -1)}

    # Evaluation


def groups_for(queries: int) -> int:
    """Return the number of groups of queries while training."""
    return max(1, min(MOST_GROUPS, round(BUDGET / queries)))


def true_tensors(boxes: Boxes) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (n, 4) as centre and sides, classes (n,), and crowds (m, 4), of boxes in shares of the input."""
    xyxy = torch.from_numpy(boxes.xyxy.astype(np.float32))
    centred = to_centre(xyxy)
    crowd = torch.from_numpy(boxes.crowd)
    return centred[~crowd], torch.from_numpy(boxes.kinds)[~crowd], centred[crowd]


def _every_answer(output: Output) -> tuple[list[Answers], int]:
    """Return the answers of all layers and then of the proposals, if there are any, and the number of groups."""
    if "train.boxes" not in output:
        return [Answers(output["boxes"], output["logits"])], 1
    groups = output["train.boxes"].shape[2] // output["boxes"].shape[1]
    layers = zip(output["train.boxes"].unbind(1), output["train.logits"].unbind(1), strict=True)
    every = [Answers(boxes, logits) for boxes, logits in layers]
    if "train.first.boxes" in output:
        every.append(Answers(output["train.first.boxes"], output["train.first.logits"]))
    return every, groups
