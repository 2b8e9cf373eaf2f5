"""Operating points of a trained model: which there are, the names that users give, and comparing measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vitrail.core.errors import SettingError
from vitrail.core.text import command
from vitrail.layers.elastic import (
    OperatingPoint,
    can_merge,
    can_resize,
    columns_of,
    read_point,
    smaller_sizes,
)
from vitrail.models.patch_size import can_resize_patches
from vitrail.runs.network import Network

MERGED = (0.4, 0.6, 0.8)
"""Shares of the patches that are merged away after all blocks, where nothing was trained for it."""

WIDER = (8 / 7, 2)
"""Sides of larger patches, relative to the network's own."""

WHO_HAS_A_DIAL = (
    "ViT, DeiT, DINOv2, T2T-ViT and SuperViT merge tokens and take smaller inputs; Swin, VVT and most convolutional "
    "networks take smaller inputs."
)


def dial(network: Network, size: tuple[int, int]) -> tuple[OperatingPoint, ...]:
    """Return the operating points that a network can have without being trained for them, the whole network last.

    Smaller inputs in the proportions of SuperViT, each also with merged tokens, and larger patches.
    """
    encoder = network.encoder
    stride = encoder.spec.strides[-1]
    smaller = (
        smaller_sizes(size, encoder.spec.unit)
        if can_resize(encoder.spec) and not encoder.spec.overlap_margin
        else ()
    )
    sizes = sorted({*smaller, size})
    found = [OperatingPoint(one, patch=patch) for one in [size] for patch in _patches(network, size)]
    for one in sizes:
        found += [OperatingPoint(one, merge=count) for count in reversed(_merges(network, one, stride))]
        found.append(OperatingPoint(one))
    return tuple(found)


def _merges(network: Network, size: tuple[int, int], stride: int) -> list[int]:
    """Return how many pairs of patches each block merges, so that the shares in `MERGED` are gone in the end."""
    columns = columns_of(network.encoder)
    if not can_merge(network.encoder) or len(columns) != 1 or len(columns[0]) < 2:
        return []
    patches = (size[0] // stride) * (size[1] // stride)
    counts = (round(share * patches / (len(columns[0]) - 1)) for share in MERGED)
    return [count for count in dict.fromkeys(counts) if count]


def _patches(network: Network, size: tuple[int, int]) -> Iterator[int]:
    """Yield the sides of larger patches that tile the input, the largest first."""
    if not can_resize_patches(network.encoder) or network.head.reads == "levels":
        return
    own = network.encoder.spec.strides[0]
    for side in sorted({round(own * factor) for factor in WIDER} - {own}, reverse=True):
        if size[0] % side == 0 and size[1] % side == 0:
            yield side


def chosen(
    wanted: str | OperatingPoint, known: Sequence[OperatingPoint], model: str = "MODEL"
) -> OperatingPoint:
    """Return the operating point that a user named; SettingError lists those of the model that are known."""
    point = read_point(wanted) if isinstance(wanted, str) else wanted
    if point in known:
        return point
    if len(known) == 1:
        raise SettingError(
            f"{point} was not measured for this model; it has one operating point, {known[0]}. Measure what else it "
            f"can do: {command('eval', model, '--points', 'all')}. Training with --elastic makes it good at several."
        )
    raise SettingError(
        f"{point} was neither trained nor measured for this model. Its operating points: "
        f"{', '.join(map(str, known))}."
    )


def asked_for(text: str, known: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return the points of a list such as 160px/0.7,224px/1, or all of them; SettingError lists those there are."""
    if text.strip() == "all":
        return list(known)
    points = [read_point(one) for one in text.split(",")]
    for point in points:
        if point not in known:
            more = " Training with --elastic makes a model for several." if len(known) == 1 else ""
            raise SettingError(
                f"{point} is not among the operating points of this model that can be measured: "
                f"{', '.join(map(str, known))}.{more}"
            )
    return points


def beaten(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each measured point the name of a point that dominates it, or "".

    A point dominates another if score and speed are at least as good and one of them is better. A row has `point`,
    `score` (with a `value`) and `images_per_second`.
    """
    names = []
    for row in rows:
        score, speed = good(row), row["images_per_second"]
        better = [
            other
            for other in rows
            if good(other) >= score
            and other["images_per_second"] >= speed
            and (good(other) > score or other["images_per_second"] > speed)
        ]
        best = max(better, key=lambda one: (good(one), one["images_per_second"]), default=None)
        names.append(name_of(best) if best else "")
    return names


def name_of(row: Mapping[str, Any]) -> str:
    """Return the name of a measured row: the point, or the network of another model beside it."""
    return str(row.get("network") or row["point"])


def good(row: Mapping[str, Any]) -> float:
    """Return the score of a measured point, negated if lower is better."""
    value: float = row["score"]["value"]
    return -value if row["score"].get("better") == "lower" else value
