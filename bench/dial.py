"""What the dial is worth: four trained networks at every operating point, with smaller fixed networks beside them.

`python -m bench.dial [--epochs 10] [--out FOLDER] [--only draft|scratch]`. CIFAR-10 from ../shared. Of a draft on the
frozen ViT-S/14 of ../shared/weights at 224 px (8,000 images for the head, the other 2,000 for scores) every point is
measured, and drafts at smaller inputs, with heads of their own, stand beside it. A ViT, a DeiT and a SuperViT of 0.2
million parameters with patches of 2 px are trained from scratch for the same number of epochs, and beside each stand
ViTs trained at 20, 24 and 28 px and a narrower one. At the end the best point within one point of accuracy, the whole
network and the fixed network nearest to it take turns, batch 32, and the paired ratio of their times is printed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from bench.pairs import in_turn, machine, ratio
from vitrail.data.batch import images_only
from vitrail.infer.autotune import request_with
from vitrail.infer.backends import Backend
from vitrail.infer.operating_points import name_of
from vitrail.infer.predictor import Predictor
from vitrail.infer.proof_images import readable
from vitrail.layers.elastic import read_point
from vitrail.reports.operating_points import PointsWish, evaluate_points
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "dinov2-small-saliency"
BATCH, ROUNDS = 32, 15
HELD = 5
"""Every fifth image of a class is for the scores of drafts."""

SCRATCH: Mapping[str, tuple[str, int, str]] = {
    "vit": ("vit_digits", 32, "patch=2"),
    "deit": ("deit_ti16", 32, "patch=2,width=64,depth=4,heads=4"),
    "supervit": ("supervit_digits", 32, "patch=2"),
    "vit20": ("vit_digits", 20, "patch=2"),
    "vit24": ("vit_digits", 24, "patch=2"),
    "vit28": ("vit_digits", 28, "patch=2"),
    "narrow": ("vit_digits_narrow", 32, "patch=2"),
}
FIXED = ("vit20", "vit24", "vit28", "narrow")
DRAFTS = {"draft224": 224, "draft196": 196, "draft154": 154, "draft126": 126}


class Measured(NamedTuple):
    """A model, its measured rows, and the name of the score."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    score: str


def unpacked(out: Path) -> Path:
    """Return the folder of CIFAR-10, with the same images again in two parts, `head` and `held`."""
    whole = out / "cifar10-10k"
    if not whole.is_dir():
        with zipfile.ZipFile(SHARED / "data" / "cifar10-10k.zip") as packed:
            packed.extractall(out)
    if not (out / "held").is_dir():
        for path in sorted(whole.glob("*/*")):
            part = "held" if int(path.stem) % HELD == 0 else "head"
            (out / part / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / part / path.parent.name / path.name)
    return whole


def scratch(out: Path, epochs: int) -> list[Measured]:
    """Train the small networks, where they are not there yet, and measure all points of three of them."""
    data, runs = unpacked(out), out / "runs"
    for name, (model, side, settings) in SCRATCH.items():
        if not (runs / name / "report.json").is_file():
            options = TrainOptions(
                model=model, weights="none", imgsz=str(side), network=settings, epochs=epochs, seed=0,
                recipe="scratch_small", out=str(runs / name),
            )  # fmt: skip
            train(data, options)
    beside = [str(runs / name) for name in FIXED]
    return [measured(str(runs / name), PointsWish(beside=beside)) for name in ("vit", "deit", "supervit")]


def drafts(out: Path) -> Measured:
    """Draft at four input sizes and measure all points of the largest, with the others beside it."""
    unpacked(out)
    for name, side in DRAFTS.items():
        if not (out / "runs" / name / "report.json").is_file():
            options = TrainOptions(
                weights=str(WEIGHTS), imgsz=str(side), tune="draft", seed=0, out=str(out / "runs" / name)
            )
            train(out / "head", options)
    whole, *smaller = (str(out / "runs" / name) for name in DRAFTS)
    return measured(whole, PointsWish(data=str(out / "held"), beside=smaller))


def measured(model: str, wish: PointsWish) -> Measured:
    report, score = evaluate_points(model, wish, lambda line: print(line, flush=True))
    print(report["verdict"], report["page"], flush=True)
    return Measured(model, report["points"], score)


def printed(found: Measured) -> None:
    """Print a table of all points."""
    print(f"\n{Path(found.name).name}: {found.rows[0]['pictures']:,} {found.rows[0]['called']}\n")
    print(f"| point | {found.score} | 95 % interval | GMACs | images/s | latency, ms | beaten by |")
    print("|---|---|---|---|---|---|---|")
    for row in found.rows:
        score = row["score"]
        print(
            f"| {name_of(row)} | {score['value']:.1%} | {score['low']:.1%} to "
            f"{score['high']:.1%} | {row['gmacs']:.3g} | {row['images_per_second']:.0f} | {row['latency_ms']:.1f} | "
            f"{row['beaten_by']} |"
        )


def in_pairs(found: Measured, folder: Path) -> None:
    """Time the whole network, the best point within a point of it, and the fixed network nearest to that, in turn."""
    own = [row for row in found.rows if "network" not in row]
    whole = next(row for row in own if row["point"] == str(Predictor(found.name).points[-1]))
    near = [row for row in own if whole["score"]["value"] - row["score"]["value"] <= 0.01]
    best = max(near, key=lambda row: row["images_per_second"])
    fixed = min(
        (row for row in found.rows if "network" in row),
        key=lambda row: abs(row["images_per_second"] - best["images_per_second"]),
    )
    runs = {
        f"whole {whole['point']}": forward(found.name, whole),
        f"dial {best['point']}": forward(found.name, best),
        f"fixed {fixed['network']}": forward(str(folder / fixed["network"]), fixed),
    }
    times = in_turn(runs, ROUNDS, warmup=2)
    names = list(runs)
    rows = dict(zip(names, (whole, best, fixed), strict=True))
    print(f"\n{Path(found.name).name}, batch {BATCH}, {ROUNDS} rounds in turn: ", end="")
    for name in names:
        faster = ratio(times[name], times[names[0]])
        print(
            f"{name} {BATCH / median(times[name]):.1f} images/s ({rows[name]['score']['value']:.1%}; × {faster}); ",
            end="",
        )
    print(flush=True)


def forward(model: str, row: Mapping[str, Any]) -> Callable[[], object]:
    """Return a pass of a model at the point and in the backend of a measured row, on noise."""
    predictor, point = Predictor(model), read_point(row["point"])
    channels, size = predictor.preprocess.channels, point.size
    images = torch.randn(BATCH, channels, *size, generator=torch.Generator().manual_seed(0))
    noise = torch.randint(0, 256, (64, *size, channels), generator=torch.Generator().manual_seed(1))
    pictures = [image.to(torch.uint8).numpy() for image in noise]

    def shown(count: int) -> Any:
        return readable([(lambda image=image: image) for image in pictures[:count]])

    request = request_with(predictor, Backend(**row["backend"]), point, shown)
    batch = images_only(images)
    return lambda: predictor.run(batch, request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", choices=("draft", "scratch"))
    parser.add_argument("--out", type=Path, help="keep data and runs here")
    options = parser.parse_args()
    if not WEIGHTS.exists():
        print("skipped: ../shared is not here")
        return
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        found = [] if options.only == "scratch" else [drafts(out)]
        found += [] if options.only == "draft" else scratch(out, options.epochs)
        for one in found:
            printed(one)
        for one in found:
            in_pairs(one, out / "runs")


if __name__ == "__main__":
    main()
