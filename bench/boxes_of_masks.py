"""Boxes of the connected components of masks, as a data set of detection: cars and pedestrians of CamVid.

`python -m bench.boxes_of_masks camvid-320.zip traffic/ --classes Car Pedestrian`

Reads `train|val/{images,masks}` and classes.txt of a zip; writes the images and one COCO file a split. Components below
`LEAST` pixels are left out. Cars that touch in the mask are one box: the masks know no objects.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

LEAST = 60
"""Pixels of the smallest component that becomes a box."""


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("masks")
    parser.add_argument("out")
    parser.add_argument("--classes", nargs="+", required=True)
    asked = parser.parse_args()
    with zipfile.ZipFile(asked.masks) as source:
        names = source.namelist()
        listed = (
            source.read(next(name for name in names if name.endswith("classes.txt"))).decode().splitlines()
        )
        kinds = {wanted: _place(listed, wanted) for wanted in asked.classes}
        for split in ("train", "val"):
            _write(source, Path(asked.out), split, kinds)


def _place(listed: list[str], wanted: str) -> int:
    return next(i for i, line in enumerate(listed) if wanted.lower() in line.lower())


def _write(source: zipfile.ZipFile, out: Path, split: str, kinds: dict[str, int]) -> None:
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(kinds, 1)]
    (out / split).mkdir(parents=True, exist_ok=True)
    for name in sorted(
        one for one in source.namelist() if f"{split}/masks/" in one and not one.endswith("/")
    ):
        mask = np.array(Image.open(io.BytesIO(source.read(name))))
        stem = PurePosixPath(name).stem
        picture = next(one for one in source.namelist() if f"{split}/images/{stem}." in one)
        file = f"{stem}{PurePosixPath(picture).suffix}"
        (out / split / file).write_bytes(source.read(picture))
        number = len(content["images"]) + 1
        height, width = mask.shape
        content["images"].append({"id": number, "file_name": file, "height": height, "width": width})
        for kind, value in enumerate(kinds.values(), 1):
            labelled, _ = ndimage.label(mask == value)
            for i, (rows, cols) in enumerate(ndimage.find_objects(labelled), 1):
                if (labelled[rows, cols] == i).sum() < LEAST:
                    continue
                box = [cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start]
                own = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": kind}
                content["annotations"].append({**own, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    (out / split / "_annotations.coco.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main()
