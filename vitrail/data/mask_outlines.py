"""Masks as outlines, for files and drawings: their parts, and the holes in them. No torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.data.instances import Runs, boxes_around, cut_mask

Ring = NDArray[np.float64]
"""A closed line of corners (x, y) in pixels: (n, 2), without a repetition of the first one."""


class Part(NamedTuple):
    """One connected part of a mask: the ring around it, and the rings around its holes."""

    outer: Ring
    holes: tuple[Ring, ...]


def outlines(mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0)) -> list[Part]:
    """Return the parts of a mask (rows, cols), the largest first; `corner` is (top, left) of its first pixel.

    Rings run halfway between the centres of pixels inside and outside, so that exactly the pixels of the mask have
    their centres inside.
    """
    from contourpy import FillType, contour_generator

    if not mask.any():
        return []
    framed = np.pad(mask, 1).astype(np.float64)
    filled: Any = contour_generator(z=framed, fill_type=FillType.OuterOffset).filled(0.5, 1.5)
    parts = []
    for points, offsets in zip(filled[0], filled[1], strict=True):
        # The first pixel of the mask has its centre at 0.5; with the frame of one pixel its index is 1.
        shifted = np.asarray(points, np.float64) + np.array([corner[1] - 0.5, corner[0] - 0.5])
        rings = [_thinned(shifted[a : b - 1]) for a, b in pairwise(offsets.tolist())]
        parts.append(Part(rings[0], tuple(rings[1:])))
    return sorted(parts, key=lambda part: -abs(signed_area(part.outer)))


def rings_of(mask: Runs) -> tuple[Ring, ...]:
    """Return the lines around all parts of a mask and around their holes, in pixels of its image: (n, 2) each."""
    return tuple(ring for part in parts_of(mask) for ring in (part.outer, *part.holes))


def parts_of(mask: Runs) -> list[Part]:
    """Return the parts of a mask as `outlines` does; only the pixels around it are laid out."""
    left, top, right, bottom = boxes_around([mask])[0].astype(int).tolist()
    if left == right:
        return []
    return outlines(cut_mask(mask, (left, top, right, bottom)).astype(np.bool_), (top, left))


def keyhole(parts: list[Part]) -> Ring:
    """Return all parts and holes as one closed line, joined by lines that are walked there and back: (n, 2)."""
    rings = [ring for part in parts for ring in (part.outer, *part.holes)]
    if not rings:
        return np.zeros((0, 2))
    first = rings[0]
    line = [first, first[:1]]
    for ring in rings[1:]:
        line += [ring, ring[:1], first[:1]]
    return np.concatenate(line if len(rings) > 1 else [first])


def signed_area(ring: Ring) -> float:
    """Return the area of a ring in square pixels; its sign tells in which direction it runs."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _thinned(ring: Ring) -> Ring:
    """Return the ring without corners on straight lines."""
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    kept = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    return ring[kept] if kept.sum() >= 3 else ring
