"""Instances learnt from one image: the nuclei of a fluorescence image, whose right part no training sees.

`python -m bench.nuclei ../shared/data/nuclei.zip --weights ../shared/weights/dinov2-small-saliency --minutes 15`

Cuts the left part of the image into overlapping crops for training and validation, keeps the right part for the test,
writes both as images beside 16-bit label maps, trains `--task instances` for some minutes, and prints the scores of the
test part with its drawing. One image says nothing about others: this shows that the path works, and no more.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, STEP = 160, 48
"""Pixels of a crop, and from one crop to the next."""

SPLITS = {"train": (0, 320), "val": (320, 384), "test": (384, 512)}
"""Columns of the image in each part; crops of one part never reach into another."""


def main() -> None:
    """Write the data, train and print the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nuclei")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--imgsz", default="224")
    parser.add_argument("--out", default="nuclei-run")
    asked = parser.parse_args()
    out = Path(asked.out)
    data = out / "data"
    image, labels = (_read(asked.nuclei, name) for name in ("img2d.tif", "mask2d.tif"))
    for split, (left, right) in SPLITS.items():
        print(f"{split}: {_write(data / split, image[:, left:right], labels[:, left:right])} crops")
    run = out / "run"
    _vitrail(
        "train", data, "--task", "instances", "--weights", asked.weights, "--imgsz", asked.imgsz,
        "--time", f"{asked.minutes:g}m", "--out", run,
    )  # fmt: skip
    report = json.loads((run / "report.json").read_text())["test"]
    for name in ("mask_map", "mask_map50", "map", "map50", "precision", "recall"):
        value = report[name]
        print(name, value["value"] if isinstance(value, dict) else value)
    _vitrail("predict", run, data / "test" / "images", "--out", out / "shown")


def _read(archive: str, name: str) -> NDArray[np.uint16]:
    with zipfile.ZipFile(archive) as source:
        found = next(one for one in source.namelist() if one.endswith(name))
        return np.asarray(Image.open(io.BytesIO(source.read(found)))).astype(np.uint16)


def _write(folder: Path, image: NDArray[np.uint16], labels: NDArray[np.uint16]) -> int:
    """Write crops as 8-bit images beside 16-bit label maps; return their number."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    height, width = labels.shape
    number = 0
    for top in _starts(height):
        for left in _starts(width):
            part = (slice(top, top + SIDE), slice(left, left + SIDE))
            Image.fromarray(image[part].astype(np.uint8)).save(folder / "images" / f"{number:03}.png")
            Image.fromarray(_renumbered(labels[part])).save(folder / "masks" / f"{number:03}.png")
            number += 1
    return number


def _starts(side: int) -> list[int]:
    return [0] if side <= SIDE else sorted({*range(0, side - SIDE, STEP), side - SIDE})


def _renumbered(labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the labels with numbers from 1 without gaps, as programs write them for each crop."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint16)


def _vitrail(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "vitrail", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
