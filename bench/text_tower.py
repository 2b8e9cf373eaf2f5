"""A sentence encoder joined to a frozen DINOv2 ViT-S/14 by few pairs: what it then knows, and what it does not.

`python -m bench.text_tower ENCODER [--pairs 100,400,1600] [--side 112] [--seeds 3] [--json FILE]`; ENCODER is the
folder of a sentence encoder such as all-MiniLM-L6-v2. Wants ../shared (weights and CIFAR-10) beside the repository.
Captions are made from the labels of eight classes of CIFAR-10, "a photo of a dog". Measured on pictures that it never
saw

- which of the eight classes a picture shows, in the wording of training and in another;
- which of all ten, and which of the two whose names no caption had: do the words of the encoder carry over?
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.draft import SHARED
from bench.pairs import machine
from bench.words_on_shapes import image_vectors
from vitrail.infer.predictor import Predictor
from vitrail.infer.words import text_vectors
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
UNSEEN = ("horse", "truck")
WORDING, OTHER = "a photo of a {}", "there is a {} in this picture"
VAL, TEST = 80, 500


def pictures(folder: Path) -> dict[str, list[Path]]:
    """Unpack CIFAR-10; return the pictures of each class."""
    with zipfile.ZipFile(SHARED / "data" / "cifar10-10k.zip") as archive:
        archive.extractall(folder)
    return {name: sorted((folder / "cifar10-10k" / name).glob("*.jpg")) for name in NAMES}


def table(folder: Path, of_class: dict[str, list[Path]], count: int, seed: int) -> Path:
    """Write pairs of the classes that captions name: so many for training, `VAL` for choosing the epoch and a test."""
    draw = np.random.default_rng(seed)
    known = [name for name in NAMES if name not in UNSEEN]
    path = folder / f"pairs-{count}-{seed}.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption", "split"))
        for split, number in (("train", count), ("val", VAL), ("test", VAL)):
            for i in range(number):
                name = known[i % len(known)]
                start = {"train": 0, "val": 600, "test": 650}[split]
                some = of_class[name][start:600] if split == "train" else of_class[name][start : start + 50]
                picture = some[int(draw.integers(len(some)))] if split == "train" else some[i // len(known)]
                rows.writerow((picture.relative_to(folder), WORDING.format(name), split))
    return path


def accuracy(
    predictor: Predictor,
    images: NDArray[np.float32],
    truth: Sequence[str],
    names: Sequence[str],
    wording: str,
) -> float:
    """Return how often the text of the right class is nearest, for pictures of these classes."""
    texts = text_vectors(predictor, [wording.format(name) for name in names])
    mine = [i for i, name in enumerate(truth) if name in names]
    nearest = (images[mine] @ texts.T).argmax(1)
    return float(np.mean([names[best] == truth[i] for best, i in zip(nearest, mine, strict=True)]))


def measured(
    folder: Path, encoder: str, pairs: Path, side: int, seed: int, tests: dict[str, Any]
) -> dict[str, float]:
    """Align on these pairs; return seconds and accuracies."""
    began = time.perf_counter()
    options = TrainOptions(
        task="retrieve",
        weights=str(SHARED / "weights" / "dinov2-small-saliency"),
        text_tower=encoder,
        imgsz=str(side),
        seed=seed,
        out=str(folder / f"run-{pairs.stem}"),
    )
    predictor = Predictor(train(pairs, options).folder)
    seconds = time.perf_counter() - began
    images, truth = image_vectors(predictor, tests["paths"]), tests["truth"]
    known = [name for name in NAMES if name not in UNSEEN]
    return {
        "seconds": seconds,
        "of eight": accuracy(predictor, images, truth, known, WORDING),
        "of eight, other words": accuracy(predictor, images, truth, known, OTHER),
        "of ten": accuracy(predictor, images, truth, NAMES, WORDING),
        "of the two unseen": accuracy(predictor, images, truth, UNSEEN, WORDING),
        "the unseen, of ten": _unseen_of_ten(predictor, images, truth),
    }


def _unseen_of_ten(predictor: Predictor, images: NDArray[np.float32], truth: Sequence[str]) -> float:
    texts = text_vectors(predictor, [WORDING.format(name) for name in NAMES])
    mine = [i for i, name in enumerate(truth) if name in UNSEEN]
    nearest = (images[mine] @ texts.T).argmax(1)
    return float(np.mean([NAMES[best] == truth[i] for best, i in zip(nearest, mine, strict=True)]))


def rows(found: dict[int, list[dict[str, float]]]) -> Iterator[str]:
    """Yield the rows of a Markdown table of medians and ranges over seeds."""
    names = list(next(iter(found.values()))[0])
    yield f"| pairs | {' | '.join(names)} |"
    yield f"|{'---|' * (len(names) + 1)}"
    chance = {"of eight": 1 / 8, "of eight, other words": 1 / 8, "of ten": 0.1, "of the two unseen": 0.5}
    shares = " | ".join(f"{100 * chance.get(name, 0.1):.1f} %" for name in names[1:])
    yield f"| chance | | {shares} |"
    for count, results in found.items():
        cells = []
        for name in names:
            values = [result[name] for result in results]
            unit, digits = (1, 0) if name == "seconds" else (100, 1)
            low, mid, high = (unit * value for value in (min(values), median(values), max(values)))
            cells.append(f"{mid:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})")
        yield f"| {count:,} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder")
    parser.add_argument("--pairs", default="100,400,1600")
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("VITRAIL_CACHE", str(folder / "cache"))
        of_class = pictures(folder)
        tests = {
            "paths": [path for name in NAMES for path in of_class[name][700 : 700 + TEST // len(NAMES)]],
            "truth": [name for name in NAMES for _ in range(TEST // len(NAMES))],
        }
        found: dict[int, list[dict[str, float]]] = {}
        for count in map(int, given.pairs.split(",")):
            tables = [table(folder, of_class, count, seed) for seed in range(given.seeds)]
            found[count] = [
                measured(folder, given.encoder, pairs, given.side, seed, tests)
                for seed, pairs in enumerate(tables)
            ]
            print(f"{count} pairs: {found[count]}", flush=True)
    print("\n".join(rows(found)))
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "pairs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
