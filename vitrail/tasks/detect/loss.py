"""Losses of detection: classes whose target is the overlap, distances of boxes, and generalised IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.layers.boxes import overlaps, to_corners
from vitrail.layers.query_decoder import Answers
from vitrail.tasks.set_matching import CLASS, CORNERS, OVERLAP, Pairs, assign, class_cost

SURE = 0.25
"""The share of its own probability in the target of a class; the rest is the overlap with the object."""

LEAST = 0.01
"""Smallest target of a matched prediction."""

IN_CROWD = 0.5
"""Share of a prediction's area inside a crowd from which it is not taught that it sees nothing."""


class Truths(NamedTuple):
    """The objects of one image: boxes (n, 4), centre and sides in shares of the input, classes (n,), crowds (m, 4)."""

    boxes: Tensor
    kinds: Tensor
    crowds: Tensor


class Sums(NamedTuple):
    """The sums of the losses over the predictions of a batch, before they are divided by the number of objects."""

    classes: Tensor
    corners: Tensor
    overlap: Tensor


def matched(answers: Answers, truths: Sequence[Truths], groups: int) -> list[Pairs]:
    """Return for each image which prediction learns which object; each group has an assignment of its own."""
    return [
        _pairs(boxes, logits, truth, groups)
        for boxes, logits, truth in zip(answers.boxes, answers.logits, truths, strict=True)
    ]


def summed(answers: Answers, truths: Sequence[Truths], every: Sequence[Pairs]) -> Sums:
    """Return the losses of answers (b, group·q, …) that are matched in `every` image.

    Classes: binary cross entropy whose target is t = p^0.25 · IoU^0.75 for a matched prediction, and p² weighs the
    others (IA-BCE, Cai et al. 2023, arXiv:2303.13072, as in LW-DETR, arXiv:2406.03459, eq. 1).
    """
    classes, corners, overlap = [], [], []
    for boxes, logits, truth, pairs in zip(answers.boxes, answers.logits, truths, every, strict=True):
        own, wanted = to_corners(boxes), to_corners(truth.boxes)
        iou, giou = overlaps(own[pairs.predictions], wanted[pairs.objects])
        classes.append(_class_loss(logits, pairs, truth, iou, own))
        corners.append(F.l1_loss(boxes[pairs.predictions], truth.boxes[pairs.objects], reduction="sum"))
        overlap.append((1 - giou).sum())
    return Sums(*(torch.stack(part).sum() for part in (classes, corners, overlap)))


def _pairs(boxes: Tensor, logits: Tensor, truth: Truths, groups: int) -> Pairs:
    """Return which prediction learns which object of an image."""
    with torch.no_grad():
        own = to_corners(boxes)
        cost = CLASS * class_cost(logits, truth.kinds)
        cost = cost + CORNERS * torch.cdist(boxes, truth.boxes, p=1)
        cost = cost - OVERLAP * overlaps(own[:, None], to_corners(truth.boxes)[None])[1]
        return assign(cost, groups)


def _class_loss(logits: Tensor, pairs: Pairs, truth: Truths, iou: Tensor, own: Tensor) -> Tensor:
    """Return the summed loss of the classes of one image."""
    p = logits.sigmoid()
    kinds = truth.kinds[pairs.objects]
    with torch.no_grad():
        sure = p[pairs.predictions, kinds]
        target = (sure**SURE * iou.clamp(min=0) ** (1 - SURE)).clamp(min=LEAST)
    yes = torch.zeros_like(logits)
    yes[pairs.predictions, kinds] = target
    no = p**2
    if len(truth.crowds):
        no = no * ~_inside(own, truth.crowds)[:, None]
    matched = torch.zeros_like(logits, dtype=torch.bool)
    matched[pairs.predictions, kinds] = True
    no = torch.where(matched, 1 - yes, no)
    return -(yes * F.logsigmoid(logits) + no * F.logsigmoid(-logits)).sum()


def _inside(own: Tensor, crowds: Tensor) -> Tensor:
    """Return which boxes lie mostly inside a crowd: (q,)."""
    low = torch.maximum(own[:, None, :2], to_corners(crowds)[None, :, :2])
    high = torch.minimum(own[:, None, 2:], to_corners(crowds)[None, :, 2:])
    area = (own[:, 2:] - own[:, :2]).clamp(min=0).prod(-1).clamp(min=1e-12)
    return ((high - low).clamp(min=0).prod(-1) / area[:, None]).amax(1).detach() >= IN_CROWD
