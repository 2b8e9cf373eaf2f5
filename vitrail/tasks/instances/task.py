"""Instance segmentation: the objects of an image, each with its box, its class and its mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.data.batch import Geometry
from vitrail.data.boxes import by_score, take_found
from vitrail.data.instances import FoundInstances, Instances, Runs, joined_runs, moved_runs
from vitrail.layers.boxes import to_corners
from vitrail.layers.heads import Output
from vitrail.layers.tokens import FeatureSpec
from vitrail.tasks.base import Ask, Losses, within
from vitrail.tasks.detect.agreement import partners
from vitrail.tasks.detect.files import ImageBoxes, write_coco, write_yolo
from vitrail.tasks.detect.mosaic import TrueTensors
from vitrail.tasks.detect.object_task import FindObjects, true_tensors
from vitrail.tasks.detect.prediction import Objects
from vitrail.tasks.detect.tiles import Tile, merge_pieces
from vitrail.tasks.instances.drawings import draw_beside, draw_found, pairs_of
from vitrail.tasks.instances.evaluation import InstanceEvaluation
from vitrail.tasks.instances.head import InstanceHead
from vitrail.tasks.instances.loss import MaskFactors, MaskSums, mask_sums
from vitrail.tasks.instances.masks import Onto, cut_to
from vitrail.tasks.instances.prediction import Shapes
from vitrail.tasks.instances.settings import InstanceSettings
from vitrail.tasks.instances.targets import InstanceTargets
from vitrail.tasks.result import Exports
from vitrail.tasks.set_matching import Pairs

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

PIXELS, DICE = 5.0, 5.0
"""Weights of the losses of the masks (arXiv:2511.09554)."""

MOST = 300
"""Most objects of an image that are scored, the most confident ones."""

CELLS = 0.02
"""Share of the cells of a mask that may differ between two predictions that are the same in a proof, or one cell."""

SIDE = 24
"""Rows and columns of the masks that a proof compares."""


class SegmentInstances(InstanceTargets, FindObjects[Instances]):
    """The queries of detection with a mask each: the product of its vector with a map at a quarter of the input.

    Losses: those of detection, and cross entropy and Dice of the masks of matched queries after every layer.
    """

    name = "instances"
    kind = "instances"
    Settings = InstanceSettings
    outputs: Mapping[str, tuple[str, ...]] = {
        "boxes": ("query", "side"), "logits": ("query", "class"), "proposals": ("cell",),
        "masks": ("query", "row", "col"),
    }  # fmt: skip
    meanings: Mapping[str, str] = MappingProxyType(
        {
            **FindObjects.meanings,
            "masks": "the mask of each query, in the order of found: logits of cells that cover the network's input "
            "evenly; {place}, linearly between the centres of cells, and what is above 0 belongs to the object",
        }
    )
    columns = (*FindObjects.columns, "area")
    exports = Exports("image-segmentation", ("mask_map", "mask_map50"))
    # Which cell becomes the last query may depend on rounding, so what is unsure hardly counts.
    proof_weights = (4, 1.0)
    agreement = "sets of objects are the same (class, corners, and 98 % of the cells of their masks)"

    # Network

    def head(self, spec: FeatureSpec) -> InstanceHead:
        """Return a projector, a decoder and a mask branch of the sizes in the settings."""
        return InstanceHead(spec, len(self.labels), self.shape())

    def transform(self, target: Instances, view: Any) -> Instances:
        """Return the objects that a view shows: boxes in shares of the input, and what they cover."""
        seen = InstanceTargets.transform(self, target, view)
        height, width = view.geometry.size
        share = seen.boxes.xyxy / np.array([width, height, width, height], np.float64)
        return seen._replace(boxes=seen.boxes._replace(xyxy=share))

    def collate(self, targets: Sequence[Instances]) -> Sequence[TrueTensors]:
        """Return for each image boxes, classes and crowds as in detection, and what the objects cover (n, row, col)."""
        return [_tensors(one) for one in targets]

    def loss(self, output: Output, targets: Sequence[TrueTensors]) -> Losses:
        """Return the losses of detection, and those of the masks, summed over layers and divided by the objects."""
        losses, pairs = self.matched_loss(output, targets)
        sums = list(_mask_losses(output, targets, pairs))
        groups = max(1, output.get("train.boxes", output["boxes"]).shape[-2] // output["boxes"].shape[1])
        weight = self.settings.mask_weight / (max(1.0, self.weights(targets)["mask_pixels"]) * groups)
        pixels, dice = (weight * torch.stack(part).sum() for part in zip(*sums, strict=True))
        return Losses({**losses.parts, "mask_pixels": PIXELS * pixels, "mask_dice": DICE * dice})

    def weights(self, targets: Sequence[TrueTensors]) -> Mapping[str, float]:
        """Return the number of objects; for the classes an image without objects counts as one."""
        counts = super().weights(targets)
        return {**counts, "mask_pixels": counts["corners"], "mask_dice": counts["corners"]}

    # Answer

    def decode(self, output: Output, at: Sequence[Geometry], ask: Ask) -> list[Objects]:
        """Return the objects above the threshold in pixels of the originals, each query with its best class."""
        least = self.settings.threshold if ask.threshold is None else ask.threshold
        answers: list[Objects] = []
        for found, geometry in zip(self.find_masks(output, at, least), at, strict=True):
            one = Shapes(found.boxes, self.labels, geometry, masks=found.masks)
            answers.append(one.without_overlap(self.settings.nms) if self.settings.nms else one)
        return answers

    def find_masks(
        self, output: Mapping[str, Tensor], at: Sequence[Geometry], least: float = 0.0
    ) -> list[FoundInstances]:
        """Return the objects with a confidence of at least `least` in pixels of the originals, at most `MOST`.

        The most confident is first. Only the masks of these are computed, one by one.
        """
        every = []
        output = self._weighed(output) if self.settings.sure_masks else output
        scores = (output["logits"].float() / self.settings.temperature).sigmoid().amax(-1).cpu().numpy()
        for place, (boxes, geometry) in enumerate(zip(self.find(output, at), at, strict=True)):
            order = by_score(scores[place])
            kept = min(MOST, int((boxes.scores >= least).sum()))
            maps, shares = output["masks"][place].cpu(), to_corners(output["boxes"][place].float()).cpu()
            onto = Onto.of(geometry, maps.shape[-2], maps.shape[-1])
            masks = tuple(onto.mask(self._cut(maps[i], shares[i])) for i in order[:kept].tolist())
            every.append(FoundInstances(take_found(boxes, slice(kept)), masks))
        return every

    def _weighed(self, output: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the outputs with the logits of confidences that are multiplied by how sure the masks are."""
        masks = output["masks"].float()
        inside = masks > 0
        sure = (masks.sigmoid() * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)
        temperature = self.settings.temperature
        p = (output["logits"].float() / temperature).sigmoid() * sure[..., None]
        return {**output, "logits": temperature * p.clamp(1e-6, 1 - 1e-6).logit()}

    def _cut(self, mask: Tensor, box: Tensor) -> Tensor:
        reach = self.settings.reach
        return mask if reach is None else cut_to(mask, box, reach)

    def join_tiles(self, found: Sequence[Objects], tiles: Sequence[Tile], geometry: Geometry) -> Shapes:
        """Return the prediction of a whole image from those of its tiles; pieces of one object are joined."""
        boxes, members = merge_pieces([one.found for one in found], tiles, geometry.original)
        pieces = [
            (mask, tile)
            for one, tile in zip(found, tiles, strict=True)
            for mask in (one.masks if isinstance(one, Shapes) else ())
        ]
        masks = tuple(_joined([pieces[i] for i in several], geometry.original) for several in members)
        return Shapes(boxes, self.labels, geometry, masks=masks)

    def write_labels(self, form: str, place: Path, answers: Sequence[tuple[str, Objects]]) -> None:
        """Write predictions as labels: a COCO file with run lengths, or a folder of polygons for YOLO."""
        images = [
            ImageBoxes(name, one.geometry.original, one.found, one.masks)
            for name, one in answers
            if isinstance(one, Shapes)
        ]
        if form == "coco":
            write_coco(place, images, self.labels)
        else:
            write_yolo(place, images, self.labels)

    def render(self, image: Image, prediction: Objects) -> Image:
        """Return the image with its objects, in the colours of their classes."""
        return draw_found(image, _found(prediction), self.labels)

    def compare(self, image: Image, prediction: Objects, truth: Instances) -> Image:
        """Return truth and prediction side by side, with what is matched, missed and invented."""
        found = _found(prediction)
        return draw_beside(image, found, truth, self.labels, pairs_of(found, truth, len(self.labels)))

    # Proof

    def fingerprint(self, output: Output) -> Tensor:
        """Return the fingerprint of detection, and the mean mask of the queries that are sure of an object."""
        power, least = self.proof_weights
        weight = output["logits"].float().sigmoid().amax(-1) ** power
        masks = F.adaptive_avg_pool2d(output["masks"].float().sigmoid(), (SIDE, SIDE))
        mean = (weight[..., None, None] * masks).sum(1) / weight.sum(1).clamp(min=least)[:, None, None]
        boxes = within(super().fingerprint(output), 3072)
        return torch.cat([boxes, mean.flatten(1)], 1)

    def contained(self, one: Output, other: Output, tolerance: float) -> Tensor:
        """Return for which images each object of `one` that is clearly above the threshold is in `other`: bool (b,)."""
        found = partners(one, other, self.level, tolerance)
        index = found.partner[..., None, None].expand(-1, -1, *one["masks"].shape[-2:])
        mine, theirs = one["masks"].float(), other["masks"].float().gather(1, index)
        apart = (mine.sigmoid() - theirs.sigmoid()).abs() > max(tolerance, 1e-3)
        differ = (((mine > 0) != (theirs > 0)) & apart).sum((2, 3))
        both = ((mine > 0) | (theirs > 0)).sum((2, 3))
        same = differ <= (CELLS * both).clamp(min=1)
        return found._replace(there=found.there & same).contained

    # Evaluation

    def evaluation(self) -> InstanceEvaluation:
        return InstanceEvaluation(
            self.labels,
            find=self.find_masks,
            threshold=self.settings.threshold,
            temperature=self.settings.temperature,
        )


def _tensors(one: Instances) -> TrueTensors:
    assert one.cover is not None, "a view makes the cover of its objects"
    return (*true_tensors(one.boxes), torch.from_numpy(one.cover[~one.boxes.crowd]))


def _mask_losses(
    output: Output, targets: Sequence[TrueTensors], pairs: Sequence[Sequence[Pairs]]
) -> Iterator[MaskSums]:
    """Yield the losses of each layer and image; of a network outside of training, those of its masks."""
    device = output["logits"].device
    covers = [one[3].to(device).float() / 255 for one in targets]
    boxes = [one[0].to(device) for one in targets]
    layers = output["train.boxes"].shape[1] if "train.boxes" in output else 1
    for place, (cover, box) in enumerate(zip(covers, boxes, strict=True)):
        every = _factors(output, place)
        for layer, factors in enumerate(
            every, layers - len(every)
        ):  # some heads have masks of the last layer only
            yield mask_sums(factors, pairs[layer][place], cover, box)


def _factors(output: Output, place: int) -> list[MaskFactors]:
    """Return the factors of the masks of one image after each layer."""
    if "train.masks.queries" not in output:  # masks that are multiplied already: each is a query of its own
        masks = output["masks"][place]
        queries = torch.eye(len(masks), device=masks.device, dtype=masks.dtype)
        return [MaskFactors(queries, masks, masks.new_zeros(()), scale=1.0)]
    queries, cells = (output[f"train.masks.{name}"][place] for name in ("queries", "cells"))
    bias = output["train.masks.bias"][place]
    return [MaskFactors(one, other, bias) for one, other in zip(queries, cells, strict=True)]


def _joined(pieces: Sequence[tuple[Runs, Tile]], size: tuple[int, int]) -> Runs:
    """Return the union of pieces of one object, each in the pixels of its tile."""
    return joined_runs([moved_runs(mask, (tile[1], tile[0]), size) for mask, tile in pieces])


def _found(prediction: Objects) -> FoundInstances:
    return prediction.instances if isinstance(prediction, Shapes) else FoundInstances(prediction.found, ())
