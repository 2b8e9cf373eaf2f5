"""Boxes and masks as files of other programs: COCO's JSON, YOLO's text files, a CSV table, and `supervision`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from vitrail.core.errors import DataError, MissingExtraError
from vitrail.core.files import write_json, write_text
from vitrail.data.boxes import Boxes, FoundBoxes
from vitrail.data.instances import Runs, boxes_around, mask_areas
from vitrail.data.mask_outlines import keyhole, parts_of

CSV_COLUMNS = ("image_path", "xmin", "ymin", "xmax", "ymax", "label", "score")
"""The columns of a table of boxes; the score is empty for true boxes, and an image of background has empty cells."""


class ImageBoxes(NamedTuple):
    """The boxes of one image, true or predicted; `path` is its name in files, `size` its (height, width).

    `masks` are those of objects with masks, one a box; () for boxes alone.
    """

    path: str
    size: tuple[int, int]
    boxes: Boxes | FoundBoxes
    masks: tuple[Runs, ...] = ()


def scores_of(boxes: Boxes | FoundBoxes) -> list[float] | list[None]:
    """Return the score of each box; None for true boxes, which have no score."""
    return boxes.scores.tolist() if isinstance(boxes, FoundBoxes) else [None] * len(boxes.kinds)


def crowds_of(boxes: Boxes | FoundBoxes) -> list[bool]:
    """Return whether each box is a crowd; predicted boxes never are."""
    return boxes.crowd.tolist() if isinstance(boxes, Boxes) else [False] * len(boxes.kinds)


# COCO


def coco_content(images: Sequence[ImageBoxes], names: Sequence[str]) -> dict[str, Any]:
    """Return COCO's images, categories and annotations; ids count from 1, and predictions have a `score`.

    Masks are written as run lengths, which keep every pixel, holes and several parts of one object, too; their box is
    that around the mask.
    """
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for one in _coco_boxes(number, image):
            annotations.append({"id": len(annotations) + 1, **one})
    return {
        "images": [
            {"id": number, "file_name": one.path, "width": one.size[1], "height": one.size[0]}
            for number, one in enumerate(images, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": annotations,
    }


def coco_results(images: Sequence[ImageBoxes]) -> list[dict[str, Any]]:
    """Return COCO's list of predictions, for `loadRes`; image and category ids are those of `coco_content`."""
    keys = ("image_id", "category_id", "bbox", "segmentation", "score")
    return [
        {key: one[key] for key in keys if key in one}
        for number, image in enumerate(images, 1)
        for one in _coco_boxes(number, image)
    ]


def _coco_boxes(number: int, image: ImageBoxes) -> list[dict[str, Any]]:
    found = []
    boxes = image.boxes
    sides = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
    columns = zip(
        boxes.xyxy.tolist(),
        sides.tolist(),
        boxes.kinds.tolist(),
        scores_of(boxes),
        crowds_of(boxes),
        _mask_entries(image),
        strict=True,
    )
    for corners, (wide, tall), kind, score, crowd, mask in columns:
        one = {
            "image_id": number,
            "category_id": kind + 1,
            "bbox": [corners[0], corners[1], wide, tall],
            "area": wide * tall,
            "iscrowd": int(crowd),
            **mask,
        }
        found.append(one if score is None else {**one, "score": score})
    return found


def _mask_entries(image: ImageBoxes) -> list[dict[str, Any]]:
    """Return the segmentation of each object, its area and the box around it; nothing for boxes alone."""
    if not image.masks:
        return [{} for _ in image.boxes.kinds]
    around = boxes_around(image.masks)
    flat = np.concatenate([around[:, :2], around[:, 2:] - around[:, :2]], 1).tolist()
    areas = mask_areas(image.masks).tolist()
    return [
        {"segmentation": mask.to_dict(), "area": area, **({"bbox": box} if area else {})}
        for mask, area, box in zip(image.masks, areas, flat, strict=True)
    ]


def write_coco(path: Path, images: Sequence[ImageBoxes], names: Sequence[str]) -> None:
    """Write a COCO file of true boxes or of pre-labels; RunError if the disk is full or not writable."""
    write_json(path, coco_content(images, names))


# YOLO


def to_yolo(
    boxes: Boxes | FoundBoxes, size: tuple[int, int], *, masks: Sequence[Runs] = (), scores: bool = False
) -> str:
    """Return the text of one image of (height, width): a line per box with class, centre and sides as shares.

    An object with a mask has the corners of its outline in their place, all parts and holes in one line. `scores` adds
    the score of a prediction to its line, as YOLO's own programs do; tools for labels refuse it.
    """
    height, width = size
    lines = []
    outlined = [_polygon(mask) for mask in masks] or [np.zeros((0, 2))] * len(boxes.kinds)
    columns = zip(boxes.xyxy.tolist(), boxes.kinds.tolist(), scores_of(boxes), outlined, strict=True)
    for corners, kind, score, outline in columns:
        left, top, right, bottom = corners
        shares: Sequence[float] = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
        if len(outline):
            shares = (outline / (width, height)).ravel().tolist()
        last = [f"{score:.6g}"] if scores and score is not None else []
        lines.append(" ".join([str(kind), *(f"{one:.8f}".rstrip("0").rstrip(".") for one in shares), *last]))
    return "".join(f"{line}\n" for line in lines)


def _polygon(mask: Runs) -> NDArray[np.float64]:
    """Return one closed line around all parts of a mask and around their holes: (n, 2)."""
    return keyhole(parts_of(mask))


def from_yolo(text: str, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return corners (n, 4) in pixels and classes (n,) of a text of `to_yolo`, for an image of (height, width).

    Raises:
        DataError: a line is not a class and four shares.
    """
    rows = [line.split() for line in text.splitlines() if line.strip()]
    try:
        table = np.array([[float(one) for one in row[:5]] for row in rows], np.float64).reshape(-1, 5)
    except ValueError as error:
        raise DataError(
            f"A line of YOLO is not a class and four numbers ({error}). Export it again."
        ) from error
    centre, half = table[:, 1:3] * size[::-1], table[:, 3:5] * size[::-1] / 2
    return np.concatenate([centre - half, centre + half], 1), table[:, 0].astype(np.int64)


def write_yolo(
    folder: Path, images: Sequence[ImageBoxes], names: Sequence[str], *, scores: bool = False
) -> None:
    """Write data.yaml and one text file per image below labels/; an image without boxes gets an empty file.

    Images belong to images/ beside labels/, with the same names.

    Raises:
        DataError: two images would get the same text file.
    """
    files = [PurePosixPath(one.path.rpartition("!")[2]) for one in images]
    texts = [file.relative_to("images") if file.parts[:1] == ("images",) else file for file in files]
    places = [text.with_suffix(".txt") for text in texts]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise DataError(f"Two images would have the text file {twice}. Rename one of them.")
    for place, one in zip(places, images, strict=True):
        write_text(folder / "labels" / place, to_yolo(one.boxes, one.size, masks=one.masks, scores=scores))
    content = {"train": "images", "val": "images", "names": dict(enumerate(names))}
    write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


# Tables


def csv_text(images: Sequence[ImageBoxes], names: Sequence[str]) -> str:
    """Return a table with a box in each row, and a row with empty cells for an image without boxes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    for one in images:
        columns = zip(one.boxes.xyxy.tolist(), one.boxes.kinds.tolist(), scores_of(one.boxes), strict=True)
        rows = [
            [
                one.path,
                *(f"{n:.3f}".rstrip("0").rstrip(".") for n in corners),
                names[kind],
                _score_cell(score),
            ]
            for corners, kind, score in columns
        ]
        table.writerows(rows or [[one.path, *[""] * (len(CSV_COLUMNS) - 1)]])
    return text.getvalue()


def _score_cell(score: float | None) -> str:
    return "" if score is None else f"{score:.6g}"


def write_csv(path: Path, images: Sequence[ImageBoxes], names: Sequence[str]) -> None:
    """Write a table of boxes; RunError if the disk is full or not writable."""
    write_text(path, csv_text(images, names))


# Libraries


def to_supervision(found: FoundBoxes, names: Sequence[str] = ()) -> Any:
    """Return predicted boxes as `supervision.Detections`, with the class names if they are given.

    Raises:
        MissingExtraError: the package `supervision` is not installed.
    """
    try:
        library = import_module("supervision")
    except ImportError as error:
        raise MissingExtraError(
            "to_supervision needs the package supervision. Install it: pip install supervision"
        ) from error
    data = {"class_name": np.array([names[kind] for kind in found.kinds.tolist()])} if names else {}
    return library.Detections(
        xyxy=found.xyxy.astype(np.float32),
        confidence=found.scores.astype(np.float32),
        class_id=found.kinds.astype(np.int64),
        data=data,
    )
