"""DiT in pixels on the built-in digits: are made digits recognised, do they teach, are they copies?

A classifier learns the real digits, a DiT learns to make them (on its training split), and a second classifier learns
made digits alone. All real digits that are tested on are of the DiT's test split. Figures as JSON; files stay in --out.

    python -m bench.generated_digits --time 30m --out digits/
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.pairs import machine
from vitrail.data.manifest import TEST, TRAIN, Manifest
from vitrail.infer.made_images import made_images, making_of
from vitrail.infer.predictor import Predictor
from vitrail.runs.run import Run, open_run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train

SIDE = 8
"""Pixels of a side of the scans, in which distances are measured."""


def main() -> None:
    told = argparse.ArgumentParser()
    told.add_argument("--time", default="30m", help="training of the DiT")
    told.add_argument("--each", type=int, default=100, help="made images of a class")
    told.add_argument("--guidance", type=float, default=None)
    told.add_argument("--steps", type=int, default=None)
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--out", type=Path, default=Path("generated_digits"))
    options = told.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    real = _trained(options.out / "real", TrainOptions(seed=options.seed), found)
    wanted = TrainOptions(task="generate", time=options.time, seed=options.seed, device="cpu")
    maker = _trained(options.out / "maker", wanted, found)
    made = _made(maker, options, found)
    classifier = Predictor(real, "cpu")
    found["recognised"] = _right(classifier, made)
    taught = train(
        str(options.out / "made"),
        TrainOptions(seed=options.seed, out=str(options.out / "taught"), **_AS_DIGITS),
    )
    manifest = maker.manifest(maker.root())
    tests = {
        name: [manifest.root / row.path for row in manifest.rows(TEST) if row.target == name] for name in made
    }
    found["taught_by_made_ones_alone"] = _right(Predictor(taught, "cpu"), tests)
    found["taught_by_real_ones"] = _right(classifier, tests)
    found["nearest"] = _distances(manifest, made)
    print(json.dumps(found, indent=2))


_AS_DIGITS: dict[str, Any] = {
    "model": "vit_digits",
    "weights": "none",
    "recipe": "digits_vit",
    "imgsz": "32",
    "fit": "squash",
}
"""How the real digits are learnt, for images in a folder."""


def _trained(folder: Path, options: TrainOptions, found: dict[str, Any]) -> Run:
    """Train on the digits unless the folder holds a run already, and note the seconds and the scores."""
    began = time.process_time()
    if not (folder / "report.json").is_file():
        train("digits", TrainOptions(**{**_given(options), "out": str(folder)}))
    run = open_run(folder)
    report = json.loads(run.report_path.read_text())
    found[folder.name] = {
        "cpu_seconds_now": round(time.process_time() - began, 1),
        "seconds": report["seconds"],
        "cost": report["cost"],
        "test": report["test"],
        "parameters": report["parameters"],
    }
    return run


def _given(options: TrainOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}


def _made(maker: Run, options: argparse.Namespace, found: dict[str, Any]) -> dict[str, list[Path]]:
    """Make images of every class as class folders; return their paths by class."""
    predictor = Predictor(maker, "cpu")
    making = making_of(predictor, {"steps": options.steps, "guidance": options.guidance})
    began, paths = time.process_time(), {}
    for name in predictor.labels:
        folder = options.out / "made" / name
        folder.mkdir(parents=True, exist_ok=True)
        paths[name] = [folder / f"{number:04}.png" for number in range(options.each)]
        images = made_images(predictor, name, options.each, options.seed, making=making)
        for path, image in zip(paths[name], images, strict=True):
            image.save(path)
    seconds = (time.process_time() - began) / (options.each * len(paths))
    found["making"] = {"steps": making.steps, "sampler": making.sampler, "guidance": making.guidance}
    found["cpu_seconds_an_image"] = round(seconds, 3)
    return paths


def _right(classifier: Predictor, paths: dict[str, list[Path]]) -> dict[str, Any]:
    """Return the share of images that are recognised as their class, of all and by class."""
    shares = {
        name: [
            str(one.to_dict()["label"]) == name for one in classifier.predict([str(path) for path in files])
        ]
        for name, files in paths.items()
    }
    every = [one for right in shares.values() for one in right]
    by_class = {name: round(float(np.mean(right)), 4) for name, right in shares.items()}
    return {"share": round(float(np.mean(every)), 4), "images": len(every), "by_class": by_class}


def _distances(manifest: Manifest, made: dict[str, list[Path]]) -> dict[str, Any]:
    """Return how far made images, and real ones of the test split, are from the nearest training image of their class.

    Distances are root mean squares of greys from 0 to 1, at 8 x 8 pixels. A made image is as near as a copy if it is
    nearer than the nearest hundredth of the real ones.
    """
    near: dict[str, list[float]] = {"made": [], "real": [], "among_training": []}
    for name, files in made.items():
        known = _greys([manifest.root / row.path for row in manifest.rows(TRAIN) if row.target == name])
        tests = _greys([manifest.root / row.path for row in manifest.rows(TEST) if row.target == name])
        near["made"] += _nearest(_greys(files), known)
        near["real"] += _nearest(tests, known)
        near["among_training"] += _nearest(known, known, itself=True)
    least = float(np.percentile(near["among_training"], 1))
    quantiles = {
        which: [round(float(np.percentile(values, at)), 4) for at in (1, 25, 50, 75, 99)]
        for which, values in near.items()
    }
    copies = float(np.mean(np.array(near["made"]) < least))
    return {"percentiles_1_25_50_75_99": quantiles, "nearer_than_hundredth_of_real": round(copies, 4)}


def _greys(paths: Sequence[Path]) -> NDArray[np.float64]:
    images = [Image.open(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX) for path in paths]
    return np.stack([np.asarray(image, np.float64).ravel() / 255 for image in images])


def _nearest(some: NDArray[np.float64], others: NDArray[np.float64], itself: bool = False) -> list[float]:
    apart = np.sqrt(((some[:, None] - others[None]) ** 2).mean(-1))
    if itself:
        np.fill_diagonal(apart, np.inf)
    return [float(one) for one in apart.min(1)]


if __name__ == "__main__":
    main()
