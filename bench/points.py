"""One network for every cost, or several for one cost each? CIFAR-10 from ../shared, 32 px, patches of 4.

`python -m bench.points [--minutes 40] [--each] [--out FOLDER]`. One `supervit_digits` is trained for the minutes named
and answers at all its points. Beside it: `vit_digits` trained for one size each, at the sizes and so at the costs of
four of the points, and a smaller network, `vit_digits_narrow`. Together the four get the same minutes, a quarter
each, and so does the smaller one; with `--each` everyone gets all the minutes. The split is the same. Accuracy is of
the test images with its interval; speeds are medians of rounds in which all take turns, batch 64, float32. A row is
beaten where another is as right and as quick, and in one of both better.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.pairs import in_turn, machine
from vitrail.data.batch import images_only
from vitrail.infer.operating_points import beaten
from vitrail.infer.predictor import Predictor, Request
from vitrail.layers.elastic import OperatingPoint, at_size
from vitrail.models.factory import count_macs
from vitrail.reports.operating_points import evaluate_points
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIZES = (20, 24, 28, 32)
BATCH = 64


def trained(data: Path, out: Path, model: str, side: int, minutes: float) -> Path:
    options = TrainOptions(
        model=model, weights="none", imgsz=str(side), time=f"{60 * minutes:.0f}s", seed=0, out=str(out),
        recipe="scratch_small",
    )  # fmt: skip
    folder = train(data, options).folder
    print(f"{model} at {side} px: trained for {minutes:g} minutes", flush=True)
    return folder


def row(name: str, score: dict[str, float], predictor: Predictor, point: OperatingPoint) -> dict[str, Any]:
    macs = count_macs(predictor.network.encoder, point.size, point.keep)
    return {"point": name, "score": score, "gmacs": macs / 1e9, "predictor": predictor, "at": point}


def rows_of(runs: dict[str, Path]) -> list[dict[str, Any]]:
    found = []
    for name, folder in runs.items():
        predictor = Predictor(folder)
        if len(predictor.points) == 1:
            score = json.loads((folder / "report.json").read_text())["test"]["accuracy"]
            found.append(row(name, score, predictor, predictor.points[0]))
            continue
        scores = {one["point"]: one["score"] for one in evaluate_points(str(folder), "all").report["points"]}
        found += [row(f"{name} {p}", scores[str(p)], predictor, p) for p in predictor.points]
    return found


def timed(rows: list[dict[str, Any]]) -> None:
    """Give each row its images a second."""

    def forward(predictor: Predictor, point: OperatingPoint) -> Callable[[], object]:
        height, width = predictor.preprocess.size
        batch, request = (
            images_only(at_size(torch.randn(BATCH, 3, height, width), point.size)),
            Request(point),
        )
        return lambda: predictor.run(batch, request)

    times = in_turn({one["point"]: forward(one["predictor"], one["at"]) for one in rows}, 25, warmup=2)
    for one in rows:
        one["images_per_second"] = BATCH / median(times[one["point"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--each", action="store_true", help="give every network all the minutes")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    options = parser.parse_args()
    archive = SHARED / "data" / "cifar10-10k.zip"
    if not archive.exists():
        print("skipped: ../shared/data is not here")
        return
    part = options.minutes if options.each else options.minutes / len(SIZES)
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch) / "runs"
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(Path(scratch) / "cifar")
        data = Path(scratch) / "cifar" / "cifar10-10k"
        runs = {"supervit": trained(data, folder / "supervit", "supervit_digits", 32, options.minutes)}
        for side in SIZES:
            name = f"vit alone {side}px"
            runs[name] = trained(data, folder / f"vit-{side}", "vit_digits", side, part)
        runs["narrow vit 32px"] = trained(data, folder / "narrow", "vit_digits_narrow", 32, part)
        rows = rows_of(runs)
        timed(rows)
    print("| network | right | 95 % interval | GMACs | images/s | beaten by |\n|---|---|---|---|---|---|")
    for one, by in zip(rows, beaten(rows), strict=True):
        score = one["score"]
        print(
            f"| {one['point']} | {score['value']:.1%} | {score['low']:.1%} to {score['high']:.1%} | "
            f"{one['gmacs']:.4f} | {one['images_per_second']:.0f} | {by} |"
        )


if __name__ == "__main__":
    main()
