"""Words and pictures, learnt from planted pairs: does each find the other, and does a word point at its shape?

`python -m bench.words_on_shapes [--epochs 12] [--minutes M] [--pool mean] [--train 36000] [--pictures 200]
[--json FILE] [--keep FOLDER]` makes the pairs of `bench/coloured_shapes.py`, trains the task `retrieve` on them from
scratch by the ordinary training, and measures on pairs that it never saw

- recall at 1 in both directions: by equal captions, as reports count, and by truth (a caption is right for each picture
  of which it is true);
- the pointing game (Zhang et al. 2018, arXiv:1608.00507): for every shape of a picture, is the largest value of the
  heat map of its words, such as "red circle", in its box? Beside it chance: the share of the box in the picture;
- zero-shot: which of the combinations that training never showed is in a picture of one, for several wordings.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.coloured_shapes import COLOURS, SHAPES, is_true, phrase, read_truth, write
from bench.pairs import machine
from vitrail.explainers.explanation import ImageExplainer, ScoringNetworks
from vitrail.explainers.methods import compatible_methods
from vitrail.infer.predictor import Predictor
from vitrail.infer.words import text_vectors
from vitrail.runs.run import Run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train

SIDE = 64
METHODS = ("relevance", "gradcam", "occlusion", "rollout")
WORDINGS = (
    "{colour} {shape}",
    "{a}",
    "a picture of {a}",
    "a {shape} that is {colour}",
    "one {colour} {shape}",
)
BATCH = 160

PATCH, STRIDE = 16, 8
"""Patches overlap: of patches of 8 px side by side a transformer learns shapes about four times slower."""

NETWORK = f"image=[{SIDE},{SIDE}],patch=[{PATCH},{STRIDE}],width=96,depth=4,heads=3"
TEXT = "text_width=96,text_depth=2,text_heads=3,embed=96,context=24,vocabulary_size=400"


def trained(folder: Path, given: argparse.Namespace) -> Run:
    """Train on the pairs of a folder, so many epochs or for a time."""
    options = TrainOptions(
        task="retrieve",
        model="vit_ti16",
        network=NETWORK,
        weights="none",
        set=TEXT,
        pool=given.pool,
        epochs=given.epochs,
        time=None if given.minutes is None else f"{60 * given.minutes:.0f}s",
        batch=BATCH,
        lr=2e-3,
        weight_decay=0.05,
        warmup=0.5,
        drop_path=0.0,
        augment="none",
        precision="bf16",
        workers=0,
        ema=0.99,
        seed=given.seed,
        out=str(folder / "run"),
    )
    return train(folder / "pairs" / "pairs.csv", options)


def image_vectors(predictor: Predictor, paths: Sequence[Path]) -> NDArray[np.float32]:
    """Return the unit vectors of pictures: (n, e)."""
    parts = [paths[at : at + BATCH] for at in range(0, len(paths), BATCH)]
    ready = ([predictor.ready(path) for path in part] for part in parts)
    return np.concatenate([predictor.outputs(part)["image"].numpy() for part in ready])


def recall(
    lines: Sequence[Mapping[str, Any]], images: NDArray[np.float32], texts: NDArray[np.float32]
) -> dict[str, Any]:
    """Return recall at 1 in both directions, by equal captions and by truth, and by the number of shapes."""
    cosines = images @ texts.T
    to_text, to_image = cosines.argmax(1), cosines.argmax(0)
    numbers = range(len(lines))

    def equal(caption: int, image: int) -> bool:
        return bool(lines[caption]["caption"] == lines[image]["caption"])

    def true(caption: int, image: int) -> bool:
        return is_true(lines[caption], lines[image])

    found: dict[str, Any] = {}
    for name, right in (("equal captions", equal), ("truth", true)):
        found[name] = {
            "image to text": share(right(int(to_text[i]), i) for i in numbers),
            "text to image": share(right(i, int(to_image[i])) for i in numbers),
            "chance": share(right(j, i) for i in numbers[::10] for j in numbers[::10]),
        }
    for count in sorted({len(line["shapes"]) for line in lines}):
        some = [i for i in numbers if len(lines[i]["shapes"]) == count]
        found[f"truth, pictures of {count}"] = share(true(int(to_text[i]), i) for i in some)
    return found


def pointing(predictor: Predictor, folder: Path, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the share of shapes on which the largest value of their map lies, by method, and chance.

    "patches summed" gives every pixel the sum of the values of all patches that see it: patches overlap, and the one
    with the largest value may see the edge of a shape from a place outside of it.
    """
    networks = ScoringNetworks(predictor)
    methods = [method for method in METHODS if method in compatible_methods(predictor.network)]
    hits: dict[str, dict[str, list[bool]]] = {method: defaultdict(list) for method in methods}
    shares, seconds = [], defaultdict(list)
    for line in lines:
        look = ImageExplainer(predictor, folder / line["image"], networks)
        for shape in line["shapes"]:
            mask = shape_mask(shape["mask"])
            shares.append(box_mask(shape["box"]).mean())
            for method in methods:
                began = time.perf_counter()
                found = look.explain(method, f"{shape['colour']} {shape['name']}")
                seconds[method].append(time.perf_counter() - began)
                y, x = np.unravel_index(np.nanargmax(found.heat), found.heat.shape)
                hits[method]["in the box"].append(bool(box_mask(shape["box"])[y, x]))
                hits[method]["on the shape"].append(bool(mask[y, x]))
                if method != "occlusion":
                    y, x = middle_of_peak(summed(found.grid))
                    hits[method]["in the box, patches summed"].append(bool(box_mask(shape["box"])[y, x]))
    table = {
        method: {name: share(values) for name, values in kinds.items()}
        | {"median ms": 1e3 * median(seconds[method])}
        for method, kinds in hits.items()
    }
    return {"shapes": len(shares), "chance": float(mean(shares)), **table}


def summed(grid: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return for each pixel the sum of the values of the patches that see it: (row, col) -> (side, side)."""
    heat = np.zeros((SIDE, SIDE))
    for (row, col), value in np.ndenumerate(np.maximum(grid, 0)):
        heat[row * STRIDE : row * STRIDE + PATCH, col * STRIDE : col * STRIDE + PATCH] += value
    return heat


def middle_of_peak(heat: NDArray[np.float64]) -> tuple[int, int]:
    """Return the middle of the pixels with the largest value."""
    rows, cols = np.nonzero(heat >= heat.max() * (1 - 1e-9))
    return int(rows.mean() + 0.5), int(cols.mean() + 0.5)


def box_mask(box: Sequence[int]) -> NDArray[np.bool_]:
    """Return which pixels lie in a box: (side, side)."""
    left, top, right, bottom = box
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top:bottom, left:right] = True
    return inside


def shape_mask(runs: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask of run lengths in raster order, outside first: (side, side)."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(SIDE, SIDE)


def zero_shot(
    predictor: Predictor, lines: Sequence[Mapping[str, Any]], images: NDArray[np.float32]
) -> dict[str, Any]:
    """Return for each wording how often the right one of all combinations is nearest, and its colour and its shape."""
    every = [(name, colour) for name in SHAPES for colour in COLOURS]
    truth = [(line["shapes"][0]["name"], line["shapes"][0]["colour"]) for line in lines]
    chances = {"combination": 1 / len(every), "shape": 1 / len(SHAPES), "colour": 1 / len(COLOURS)}
    table: dict[str, Any] = {"chance": chances}
    for wording in WORDINGS:
        texts = text_vectors(predictor, [said(wording, *kind) for kind in every])
        pairs = list(zip(truth, (every[at] for at in (images @ texts.T).argmax(1).tolist()), strict=True))
        table[wording] = {
            "combination": share(a == b for a, b in pairs),
            "shape": share(a[0] == b[0] for a, b in pairs),
            "colour": share(a[1] == b[1] for a, b in pairs),
        }
    return table


def share(values: Iterable[bool]) -> float:
    """Return the share of what is true."""
    return float(mean(map(float, values)))


def said(wording: str, name: str, colour: str) -> str:
    """Return a combination in words."""
    return wording.format(shape=name, colour=colour, a=phrase(f"{colour} {name}"))


def rows(title: str, table: Mapping[str, Any]) -> str:
    """Return a Markdown table of numbers by name."""
    lines = [f"\n| {title} | | |", "|---|---|---|"]
    for name, values in table.items():
        entries = values.items() if isinstance(values, Mapping) else [("", values)]
        lines += [f"| {name} | {what} | {_number(value)} |" for what, value in entries]
    return "\n".join(lines)


def _number(value: float) -> str:
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if value > 1 else f"{100 * value:.1f} %"
    )


def measured(folder: Path, pictures: int) -> dict[str, Any]:
    """Return all measurements of the run of a folder."""
    predictor = Predictor(folder / "run", "cpu")
    test, novel = (read_truth(folder, split) for split in ("test", "novel"))
    images = image_vectors(predictor, [folder / "pairs" / "images" / line["image"] for line in test])
    unseen = image_vectors(predictor, [folder / "novel" / "images" / line["image"] for line in novel])
    texts = text_vectors(predictor, [line["caption"] for line in test])
    return {
        "recall at 1": recall(test, images, texts),
        "pointing game": pointing(predictor, folder / "pairs" / "images", test[:pictures]),
        "zero-shot": zero_shot(predictor, novel, unseen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--train", type=int, default=36_000)
    parser.add_argument("--most", type=int, default=3, help="shapes of a picture")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", default="mean", choices=["cls", "mean"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    print(machine(), flush=True)
    with nullcontext(given.keep) if given.keep else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not (folder / "truth.jsonl").is_file():
            write(folder, {"train": given.train, "val": 500, "test": 1000}, 600, given.seed, SIDE, given.most)
        cost = {}
        if not (folder / "run").is_dir():
            began, busy = time.perf_counter(), time.process_time()
            trained(folder, given)
            cost = {"seconds": time.perf_counter() - began, "CPU seconds": time.process_time() - busy}
        found = {"training": cost, **measured(folder, given.pictures)}
    for title, table in found.items():
        print(rows(title, table))
    if given.json:
        facts = {"machine": machine(), "pool": given.pool, "pairs": given.train, "seed": given.seed}
        given.json.write_text(json.dumps(facts | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
