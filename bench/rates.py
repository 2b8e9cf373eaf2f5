"""The learning rate of a full fine-tune: the same few CIFAR-10 images, epochs and seed, one run a rate.

`python -m bench.rates --rates 2e-5 5e-5 1e-4 --epochs 8` fine-tunes the ViT-S/14 of ../shared at 98 px by the recipe
`finetune_small` from its draft's head. 50 images a class, of which 10 choose the epoch; 100 others a class score.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bench.kept import CIFAR, percent
from bench.pairs import machine

WEIGHTS = CIFAR.parents[1] / "weights" / "dinov2-small-saliency"
PARTS = {"train": 40, "val": 10, "test": 100}
"""Images a class."""

HEAD = "head"
"""Stands for the head alone among the rates."""


def pictures(folder: Path) -> Path:
    """Write train, val and test folders."""
    taken: dict[str, int] = {}
    with zipfile.ZipFile(CIFAR) as archive:
        for name in sorted(archive.namelist()):
            label = Path(name).parent.name
            number = taken[label] = taken.get(label, 0) + 1
            for part, size in PARTS.items():
                if 0 < number <= size:
                    path = folder / part / label / Path(name).name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(name))
                number -= size
    return folder


def trained(data: Path, out: Path, words: list[str]) -> dict:
    """Train and return the report."""
    command = [sys.executable, "-m", "vitrail.cli.main", "train", str(data), "--out", str(out), "--json"]
    pretrained = ["--weights", str(WEIGHTS), "--imgsz", "98"]
    done = subprocess.run([*command, *pretrained, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.rates")
    words.add_argument("--rates", nargs="+", default=[HEAD, "2e-5", "5e-5", "1e-4", "2e-4"])
    words.add_argument("--epochs", default="8")
    words.add_argument("--recipe", default="finetune_small")
    asked = words.parse_args()
    if not CIFAR.exists():
        print("skipped: ../shared/data/cifar10-10k.zip is not here")
        return
    print(machine())
    print("| way | right on the test split | seconds |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = pictures(folder / "pictures")
        full = ["--tune", "full", "--recipe", asked.recipe, "--epochs", asked.epochs]
        ways = {f"{asked.recipe}, {rate}": [*full, "--lr", rate] for rate in asked.rates if rate != HEAD}
        if HEAD in asked.rates:
            ways = {"head alone, by its own recipe": ["--tune", "head"]} | ways
        for number, (way, options) in enumerate(ways.items()):
            report = trained(data, folder / f"run{number}", options)
            print(f"| {way} | {percent(report['test']['accuracy'])} | {report['seconds']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
