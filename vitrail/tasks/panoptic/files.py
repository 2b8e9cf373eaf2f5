"""Panoptic maps as files of other programs: COCO's JSON file of segments and its images of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.core.files import make_folder, replace, write_json
from vitrail.data.instances import boxes_around, to_runs
from vitrail.data.panoptic import PanopticMap, coloured_ids


def write_panoptic(
    path: Path, images: Sequence[tuple[str, PanopticMap]], names: Sequence[str], things: NDArray[np.bool_]
) -> None:
    """Write the segments of images (name, map); the images of numbers lie in a folder with the name of the file.

    Raises:
        DataError: two images would get the same file.
        RunError: the disk is full or not writable.
    """
    files = [PurePosixPath(name.rpartition("!")[2]).with_suffix(".png").name for name, _ in images]
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise DataError(f"Two images would have the file {twice}. Rename one of them.")
    folder = path.with_suffix("")
    make_folder(folder)
    for file, (_, found) in zip(files, images, strict=True):
        _write_ids(folder / file, found)
    entries = [
        {"id": number, "file_name": name, "height": found.ids.shape[0], "width": found.ids.shape[1]}
        for number, (name, found) in enumerate(images, 1)
    ]
    annotations = [
        {"image_id": number, "file_name": file, "segments_info": segments_info(found)}
        for number, (file, (_, found)) in enumerate(zip(files, images, strict=True), 1)
    ]
    categories = [
        {"id": number, "name": name, "isthing": int(thing)}
        for number, (name, thing) in enumerate(zip(names, things.tolist(), strict=True), 1)
    ]
    write_json(path, {"images": entries, "annotations": annotations, "categories": categories})


def _write_ids(path: Path, found: PanopticMap) -> None:
    """Write the numbers of segments as colours. The file is a label of a data set, so it bears no mark of vitrail."""
    picture = Image.fromarray(coloured_ids(found.ids))
    replace(path, lambda temporary: picture.save(temporary, "PNG"))


def segments_info(found: PanopticMap) -> list[dict[str, Any]]:
    """Return COCO's description of the segments of one image."""
    described = []
    sizes = np.bincount(found.ids.ravel(), minlength=len(found.kinds) + 1)[1:].tolist()
    for place, (kind, score, pixels) in enumerate(
        zip(found.kinds.tolist(), found.scores.tolist(), sizes, strict=True)
    ):
        left, top, right, bottom = boxes_around(to_runs((found.ids == place + 1)[None]))[0].tolist()
        described.append(
            {
                "id": place + 1,
                "category_id": kind + 1,
                "area": pixels,
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": int(found.crowds[place]),
                "score": score,
            }
        )
    return described
