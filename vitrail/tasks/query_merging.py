"""From the masks of queries to segments of an image, as EoMT and Mask2Former answer (arXiv:2503.19108, 2112.01527).

Every function takes the outputs of one image: `logits` (q, k), whose sigmoids are the probabilities of classes that
exclude each other (the rest is "no object"), and `masks` (q, row, col), logits. `resized` brings one map (row, col) to
the size of the answer, (height, width); maps are resized one by one, and only those of queries that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

VOID = -1
"""The number of pixels without a segment."""

Resized = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class MergeRules:
    """Which queries become segments.

    `threshold` is the least confidence, `inside` the least probability of a pixel of a mask. A query is left out if at
    most the share `overlap` of its mask is left by more confident ones. Classes in `stuff` have one segment each.
    """

    threshold: float = 0.8
    inside: float = 0.5
    overlap: float = 0.8
    stuff: Collection[int] = ()


class Segment(NamedTuple):
    """One segment: its number in the map, the number of its class, and its confidence."""

    number: int
    kind: int
    score: float


class SegmentMap(NamedTuple):
    """The number of the segment of every pixel, (height, width), `VOID` without one; and the segments in order."""

    numbers: Tensor
    segments: tuple[Segment, ...]


class FoundMask(NamedTuple):
    """The mask of a query, bool (height, width), its class, and its confidence."""

    query: int
    kind: int
    score: float
    mask: Tensor


def merge_queries(
    logits: Tensor,
    masks: Tensor,
    resized: Resized,
    size: tuple[int, int],
    rules: MergeRules = MergeRules(),
) -> SegmentMap:
    """Return a map of segments: each pixel is of the query with the highest confidence times probability of its mask.

    `size` is (height, width) of the maps that `resized` returns.
    """
    scores, kinds, kept = _confident(logits, rules.threshold)
    owner, sure, areas = _owners(scores, masks, resized, size, kept, rules.inside)
    numbers = torch.full_like(owner, VOID)
    segments: list[Segment] = []
    known: dict[int, int] = {}
    for turn, query in enumerate(kept.tolist()):
        own = owner == turn
        final = own & sure
        if not final.any() or int(own.sum()) / areas[turn] <= rules.overlap:
            continue
        kind = int(kinds[query])
        if kind in known:
            numbers[final] = known[kind]
            continue
        number = len(segments)
        if kind in rules.stuff:
            known[kind] = number
        numbers[final] = number
        segments.append(Segment(number, kind, float(scores[query])))
    return SegmentMap(numbers, tuple(segments))


def found_masks(logits: Tensor, masks: Tensor, resized: Resized, threshold: float) -> Iterator[FoundMask]:
    """Yield the objects with a confidence of at least `threshold`, in the order of their queries.

    The confidence is the probability of the class times the mean probability of the pixels of the mask. Masks without
    pixels are left out. A mask is resized only if its class alone is confident enough.
    """
    probabilities = logits.float().sigmoid()
    scores, kinds = probabilities.max(-1)
    for query in (scores >= threshold).nonzero()[:, 0].tolist():
        one = resized(masks[query].float())
        mask = one > 0
        count = int(mask.sum())
        score = float(scores[query] * (one.sigmoid() * mask).sum() / (count + 1e-6))
        if count and score >= threshold:
            yield FoundMask(query, int(kinds[query]), score, mask)


def paint(found: Iterator[FoundMask], size: tuple[int, int]) -> SegmentMap:
    """Return a map of objects of an image of `size` (height, width); later masks cover earlier ones."""
    numbers = torch.full(size, VOID, dtype=torch.long)
    segments: list[Segment] = []
    for one in found:
        numbers[one.mask.to(numbers.device)] = len(segments)
        segments.append(Segment(len(segments), one.kind, one.score))
    return SegmentMap(numbers, tuple(segments))


def _confident(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return confidence and class of every query, (q,), and the queries above the threshold that see an object."""
    probabilities = logits.float().sigmoid()
    scores, kinds = probabilities.max(-1)
    nothing = 1 - probabilities.sum(-1)
    return scores, kinds, ((scores > threshold) & (scores > nothing)).nonzero()[:, 0]


class _Owners(NamedTuple):
    """For every pixel the place of its query among those kept, and whether its mask is there; the area of each mask."""

    owner: Tensor
    sure: Tensor
    areas: list[int]


def _owners(
    scores: Tensor, masks: Tensor, resized: Resized, size: tuple[int, int], kept: Tensor, inside: float
) -> _Owners:
    best = torch.full(size, -torch.inf, device=masks.device)
    owner = torch.full(size, VOID, dtype=torch.long, device=masks.device)
    sure = torch.zeros(size, dtype=torch.bool, device=masks.device)
    areas: list[int] = []
    for turn, query in enumerate(kept.tolist()):
        there = resized(masks[query].float()).sigmoid()
        mine, here = scores[query] * there, there >= inside
        areas.append(int(here.sum()))
        wins = mine > best
        best, sure = torch.where(wins, mine, best), torch.where(wins, here, sure)
        owner = owner.masked_fill(wins, turn)
    return _Owners(owner, sure, areas)
