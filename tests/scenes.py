"""Made images with masks: a disc and a box on grey ground, with two rows of void on top."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("ground", "disc", "box")
VOID = 255


def scene(number: int, size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (height, width, 3) and its mask."""
    draw = np.random.default_rng(number)
    height, width = size
    pixels = draw.integers(100, 130, (height, width, 3)).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    y, x = np.mgrid[:height, :width]
    cy, cx, radius = draw.integers(12, height - 12), draw.integers(12, width - 12), draw.integers(6, 11)
    top, left = draw.integers(2, height - 16), draw.integers(2, width - 16)
    for place, colour, there in (
        (1, (210, 60, 50), (y - cy) ** 2 + (x - cx) ** 2 < radius**2),
        (2, (40, 80, 210), (y >= top) & (y < top + 12) & (x >= left) & (x < left + 14)),
    ):
        pixels[there], mask[there] = colour, place
    mask[:2] = VOID
    return pixels, mask


def folder(root: Path, count: int) -> Path:
    """Write so many scenes as images/ and masks/ with classes.txt."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        pixels, mask = scene(number)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


SHAPES = ("disc", "square")


def objects(number: int, size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Return an image (height, width, 3) with one to three discs and squares, and its boxes as a manifest has them."""
    draw = np.random.default_rng(1000 + number)
    height, width = size
    pixels = draw.integers(100, 130, (height, width, 3)).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    boxes: list[dict[str, object]] = []
    for place in draw.permutation(6)[: draw.integers(1, 4)].tolist():  # of six cells, so that none overlaps
        row, col = divmod(place, 3)
        side = int(draw.integers(8, min(height // 2, width // 3) - 2))
        top = row * (height // 2) + int(draw.integers(0, height // 2 - side))
        left = col * (width // 3) + int(draw.integers(0, width // 3 - side))
        kind = int(draw.integers(2))
        inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
        if kind == 0:
            inside &= (y + 0.5 - top - side / 2) ** 2 + (x + 0.5 - left - side / 2) ** 2 < (side / 2) ** 2
        pixels[inside] = ((210, 60, 50), (40, 80, 210))[kind]
        boxes.append({"class": SHAPES[kind], "box": [left, top, left + side, top + side]})
    return pixels, boxes


def boxed(root: Path, count: int, empty: int = 0) -> Path:
    """Write so many images with COCO's file of their boxes; the last `empty` ones show no object."""
    (root / "images").mkdir(parents=True)
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 3 + 4 * i, "name": name} for i, name in enumerate(SHAPES)]
    for number in range(count):
        pixels, boxes = objects(number)
        if number >= count - empty:
            pixels, boxes = np.full_like(pixels, 115), []
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 64})
        for one in boxes:
            left, top, right, bottom = one["box"]  # type: ignore[misc]
            kind = content["categories"][SHAPES.index(str(one["class"]))]["id"]
            number_of = {"id": len(content["annotations"]), "image_id": number, "category_id": kind}
            content["annotations"].append({**number_of, "bbox": [left, top, right - left, bottom - top]})
    (root / "boxes.json").write_text(json.dumps(content))
    return root


def paneled(root: Path, count: int) -> Path:
    """Write so many images with COCO's panoptic segments: discs and squares on sky above ground."""
    (root / "images").mkdir(parents=True)
    (root / "panoptic").mkdir()
    names = (*SHAPES, "sky", "ground")
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [
        {"id": 2 + 3 * i, "name": name, "isthing": int(i < 2)} for i, name in enumerate(names)
    ]
    for number in range(count):
        pixels, boxes = objects(number)
        height, width = pixels.shape[:2]
        border = 18 + number % 9
        ids = np.where(np.arange(height)[:, None] < border, 900, 70_000) + np.zeros((1, width), int)
        things = np.abs(pixels.astype(int) - 115).max(-1) > 30
        ground = ~things & (ids == 70_000)
        pixels[ground] = np.minimum(pixels[ground].astype(int) + np.array([20, 60, 0]), 255).astype(np.uint8)
        segments = [
            {"id": 900, "category_id": 8, "iscrowd": 0},
            {"id": 70_000, "category_id": 11, "iscrowd": 0},
        ]
        for place, one in enumerate(boxes, 1):
            left, top, right, bottom = (int(side) for side in one["box"])
            part = (slice(top, bottom), slice(left, right))
            ids[part][things[part]] = place
            segments.append(
                {"id": place, "category_id": 2 + 3 * SHAPES.index(str(one["class"])), "iscrowd": 0}
            )
        colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        Image.fromarray(colours).save(root / "panoptic" / f"{number}.png")
        content["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        )
        content["annotations"].append(
            {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        )
    (root / "panoptic.json").write_text(json.dumps(content))
    return root


RINGS = ("ring", "square")
HOLE = 0.4
"""Diameter of the hole of a ring, as a share of its own."""


def outlined(root: Path, count: int, empty: int = 0) -> Path:
    """Write so many images with COCO's file of their masks; the last `empty` ones show no object.

    The discs of `objects` have a hole here, which run lengths keep; squares are polygons.
    """
    (root / "images").mkdir(parents=True)
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 3 + 4 * i, "name": name} for i, name in enumerate(RINGS)]
    for number in range(count):
        pixels, boxes = objects(number)
        if number >= count - empty:
            pixels, boxes = np.full_like(pixels, 115), []
        for one in boxes:
            left, top, right, bottom = one["box"]  # type: ignore[misc]
            kind = SHAPES.index(str(one["class"]))
            mask, hole = ring((48, 64), (left, top, right, bottom))
            if kind == 0:
                pixels[hole] = 115
            found = {
                "id": len(content["annotations"]) + 1, "image_id": number, "iscrowd": 0,
                "category_id": content["categories"][kind]["id"],
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask.sum()) if kind == 0 else (right - left) * (bottom - top),
                "segmentation": run_lengths(mask)
                if kind == 0
                else [[left, top, right, top, right, bottom, left, bottom]],
            }  # fmt: skip
            content["annotations"].append(found)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 64})
    (root / "objects.json").write_text(json.dumps(content))
    return root


def ring(size: tuple[int, int], box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ring in a square box (left, top, right, bottom) and its hole: (height, width) each."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    left, top, right, bottom = box
    far = np.hypot(y - (top + bottom) / 2, x - (left + right) / 2) / ((right - left) / 2)
    return (far < 1) & (far >= HOLE), far < HOLE


def run_lengths(mask: np.ndarray) -> dict[str, object]:
    """Return a mask as COCO's run lengths in numbers, column by column, the first of them outside the object."""
    turns = np.flatnonzero(np.diff(mask.T.ravel().astype(int), prepend=0))
    counts = np.diff([0, *turns.tolist(), mask.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}
