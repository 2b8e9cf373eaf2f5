"""Tree crowns in an aerial photograph: the whole image at once against tiles of the size that was trained on.

`python -m bench.tree_tiles trees.zip --weights dinov2-small-saliency [--minutes 4] [--out FILE]`

Trains on tiles of 400 px of three photographs and scores the right part of the largest one, which no tile shows, as
one image and in tiles. A line of JSON is printed, and added to FILE.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitrail.data.boxes import Boxes, clip_to, make_boxes, take_boxes
from vitrail.data.manifest import Row
from vitrail.infer.predictor import Request, load
from vitrail.infer.tiling import tiled
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.base import Ask
from vitrail.tasks.detect.evaluation import BoxEvaluation
from vitrail.tasks.detect.files import ImageBoxes, write_coco
from vitrail.training.fit import train
from vitrail.training.progress import Teller

TILE = 400
LARGE = "2019_YELL_2_541000_4977000_image_crop"
TRAINED = 800
"""Columns of the large image that are trained on; what lies right of them is scored."""


def photographs(source: zipfile.ZipFile) -> dict[str, tuple[NDArray[Any], Boxes]]:
    """Return each photograph with an XML file: (height, width, 3), and its boxes."""
    found = {}
    for name in sorted(one for one in source.namelist() if one.endswith(".xml")):
        stem = name.rpartition(".")[0]
        picture = next(
            one for one in source.namelist() if one.startswith(stem) and not one.endswith((".xml", ".csv"))
        )
        image = np.array(Image.open(io.BytesIO(source.read(picture))).convert("RGB"))
        root = ElementTree.fromstring(source.read(name))
        boxes = [
            [float(box.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for box in root.iter("object")
        ]
        found[Path(stem).name] = (image, make_boxes(boxes, [0] * len(boxes)))
    return found


def part(
    image: NDArray[Any], boxes: Boxes, left: int, top: int, right: int, bottom: int
) -> tuple[NDArray[Any], Boxes]:
    """Return a part of an image with the boxes whose centre it shows, clipped."""
    centre = (boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2
    inside = np.all((centre >= (left, top)) & (centre < (right, bottom)), 1)
    own = take_boxes(boxes, inside)
    return image[top:bottom, left:right], clip_to(
        own._replace(xyxy=own.xyxy - (left, top, left, top)), (bottom - top, right - left)
    )


def written(folder: Path, found: dict[str, tuple[NDArray[Any], Boxes]]) -> None:
    """Write the tiles that are trained on, and the validation ones, as COCO."""
    parts: dict[str, list[tuple[str, tuple[NDArray[Any], Boxes]]]] = {"train": [], "val": []}
    for name, (image, boxes) in found.items():
        width = TRAINED if name == LARGE else image.shape[1]
        places = [
            (x, y)
            for y in range(0, image.shape[0] - TILE + 1, TILE // 2)
            for x in range(0, width - TILE + 1, TILE // 2)
        ]
        for x, y in places:
            split = "val" if name == LARGE and y >= 600 else "train"
            parts[split].append((f"{name}_{x}_{y}.png", part(image, boxes, x, y, x + TILE, y + TILE)))
    for split, some in parts.items():
        (folder / split).mkdir(parents=True)
        for name, (image, _) in some:
            Image.fromarray(image).save(folder / split / name)
        images = [ImageBoxes(name, (TILE, TILE), boxes) for name, (_, boxes) in some]
        write_coco(folder / split / "_annotations.coco.json", images, ["Tree"])


def main() -> None:
    """Train, and score whole and in tiles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out")
    asked = parser.parse_args()
    with zipfile.ZipFile(asked.trees) as source:
        found = photographs(source)
    image, boxes = found[LARGE]
    held, truth = part(image, boxes, TRAINED, 0, image.shape[1], image.shape[0])
    with tempfile.TemporaryDirectory() as name:
        written(Path(name) / "data", found)
        options = TrainOptions(
            task="detect", model="dinov2_s14", weights=asked.weights, imgsz="392x392",
            time=f"{round(60 * asked.minutes)}s", out=f"{name}/run", seed=0,
        )  # fmt: skip
        predictor = load(
            train(Path(name) / "data", options, listeners=(Teller(partial(print, file=sys.stderr)),))
        )
    request = Request(predictor.point, ask=Ask(threshold=0.0))
    answers = {"whole": predictor.predict([held], request)[0], "tiles": tiled(predictor, held, TILE, request)}
    scores = {}
    for how, answer in answers.items():
        evaluation = BoxEvaluation(predictor.labels, find=lambda output, at: [output["found"]])  # type: ignore[list-item]
        evaluation.update([Row("held", "held.png")], {"found": answer.found}, [truth], [])  # type: ignore[dict-item]
        scores[how] = {
            "AP50": round(evaluation.scores()["map50"], 4),
            "AP50-95": round(evaluation.scores()["map"], 4),
        }
    told = json.dumps(
        {
            "trees": len(truth.kinds),
            "pixels": f"{held.shape[1]} x {held.shape[0]}",
            "minutes": asked.minutes,
            **scores,
        }
    )
    print(told)
    if asked.out:
        with Path(asked.out).open("a", encoding="utf-8") as file:
            file.write(told + "\n")


if __name__ == "__main__":
    main()
