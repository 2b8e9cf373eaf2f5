"""Gated augmentation on digits of which one class is cut to ten training images: what it decides, with the interval.

`python -m bench.gated_augmentation [--rare 8] [--cut 10] [--train 80] [--seeds 3] [--generator RUN]`. The digits get a
split: `--train` training images a class, of the rare class `--cut`; ten to choose the best epoch, of the rare class
two; all others are tested. A DiT in pixels is trained on the training images (or `--generator` names its run, trained
on the folder that `--folder` keeps), and `vitrail augment` decides. With `--planted`, real images of the rare class
that nobody saw stand in for generated ones, the best that a generator could make, and then its own training images,
the worst: the first should be admitted, the second is refused. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.pairs import machine
from vitrail.data.builtin import materialise
from vitrail.runs.train_options import TrainOptions

VAL, RARE_VAL = 10, 2


def split_digits(folder: Path, aside: Path, asked: argparse.Namespace) -> None:
    """Write the digits as split/class folders; training images that the cut takes away go to `aside`."""
    whole = materialise("digits", folder.parent / "whole")
    for place in sorted(whole.iterdir()):
        files = sorted(place.iterdir())
        cut, val = (asked.cut, RARE_VAL) if place.name == asked.rare else (asked.train, VAL)
        parts = {
            "train": files[:cut],
            "val": files[asked.train : asked.train + val],
            "test": files[asked.train + VAL :],
        }
        for split, some in parts.items():
            (folder / split / place.name).mkdir(parents=True)
            for file in some:
                shutil.copy(file, folder / split / place.name)
        if place.name == asked.rare:
            aside.mkdir()
            for file in files[cut : asked.train]:
                shutil.copy(file, aside)


def called(*words: object) -> dict[str, Any]:
    """Return what a vitrail command prints as JSON; an exit code of 1 is a refusal."""
    command = [sys.executable, "-m", "vitrail.cli.main", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode > 1 or not done.stdout.strip():
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def generator_of(data: Path, asked: argparse.Namespace, runs: Path) -> tuple[str, float]:
    """Return a run that makes digits, trained here unless one is named, and the seconds that it took."""
    if asked.generator:
        return asked.generator, 0.0
    began = time.monotonic()
    more = ["--epochs", asked.generator_epochs] if asked.generator_epochs else []
    called(
        "train", data, "--task", "generate", "--model", "dit_digits", "--device", asked.device,
        "--out", runs / "generated", "--json", *more,
    )  # fmt: skip
    return str(runs / "generated"), time.monotonic() - began


def decision(data: Path, generator: str, asked: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Return what `vitrail augment` says of a generator."""
    more = ["--n", asked.n] if asked.n else []
    more += ["--epochs", asked.epochs] if asked.epochs else []
    more += ["--recipe", asked.recipe]
    return called(
        "augment", data, "--class", asked.rare, "--with", generator, "--seeds", asked.seeds, "--model", asked.model,
        "--weights", "none", "--imgsz", asked.imgsz, "--device", asked.device, "--out", out, "--json", *more,
    )  # fmt: skip


def planted(
    data: Path, images: list[Path], name: str, asked: argparse.Namespace, out: Path
) -> dict[str, Any]:
    """Return what the gate says of a generator that gives these images."""
    from vitrail.studies.augment.gate import Asked, Generator, gate

    def write(folder: Path, number: int) -> list[Path]:
        folder.mkdir(parents=True)
        return [Path(shutil.copy(images[i % len(images)], folder / f"{i:04}.png")) for i in range(number)]

    options = TrainOptions(
        model=asked.model,
        weights="none",
        recipe=asked.recipe,
        imgsz=str(asked.imgsz),
        epochs=asked.epochs,
        device=asked.device,
    )
    labels = sorted(one.name for one in (data / "train").iterdir())
    wanted = Asked(str(data), asked.rare, options, asked.n, asked.seeds)
    return gate(wanted, Generator(name, labels, (), write), told, str(out)).report


def told(line: str) -> None:
    """Print a line beside the JSON."""
    sys.stderr.write(line + "\n")


def main() -> int:
    """Print the decisions as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="keep everything here")
    parser.add_argument("--rare", default="8")
    parser.add_argument("--cut", type=int, default=10)
    parser.add_argument("--train", type=int, default=80)
    parser.add_argument("--n", type=int, help="generated images; by default as many as the class lacks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="vit_digits", help="the network that is trained with and without")
    parser.add_argument("--recipe", default="digits_vit", help="of the classifiers")
    parser.add_argument("--epochs", type=int, help="of the classifiers; by default the recipe's")
    parser.add_argument("--generator", help="a run that makes digits, trained on FOLDER/digits")
    parser.add_argument("--generator-epochs", type=int)
    parser.add_argument("--imgsz", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--planted", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        root = Path(asked.folder or spare).resolve()
        root.mkdir(parents=True, exist_ok=True)
        data, aside = root / "digits", root / "aside"
        if not data.exists():
            split_digits(data, aside, asked)
        generator, seconds = generator_of(data, asked, root / "runs")
        found = {"generated": decision(data, generator, asked, root / "gated")}
        if asked.planted:
            own = sorted((data / "train" / asked.rare).iterdir())
            unseen = sorted(aside.iterdir())
            found["unseen real images"] = planted(
                data, unseen, "unseen real images", asked, root / "gated-unseen"
            )
            found["its training images"] = planted(data, own, "training images", asked, root / "gated-copies")
        settings = {
            name: getattr(asked, name)
            for name in ("rare", "cut", "train", "seeds", "imgsz", "model", "epochs")
        }
        report = {
            "machine": machine(),
            **settings,
            "generator_seconds": round(seconds, 1),
            "decisions": found,
        }
        json.dump(report, sys.stdout, indent=2)
        sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
