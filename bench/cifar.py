"""CIFAR-10, 1,000 images a class, under equal minutes: the draft, the full fine-tune, a ViT and a CNN from scratch.

`python -m bench.cifar --minutes 20 [--weights PATH] [--out FOLDER] [--only draft,full]`. Wants ../shared beside the
repository. Every way is a `vitrail train` of its own; what is done stays in FOLDER/results.json, and a run that was
stopped goes on where it was. The draft takes the time it takes. The split is 70 % train, 15 % val, 15 % test: 1,500
images choose the epoch and the temperature, 1,500 score; the draft scores all 10,000 by folds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from bench.pairs import machine

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIZE = "112"
"""Input of the pretrained network: 32 pixels carry no more, and a minute is short."""


def ways(weights: str, minutes: float) -> dict[str, list[str]]:
    """Return the options of each way."""
    pretrained = ["--weights", weights, "--imgsz", SIZE]
    clock = ["--time", f"{60 * minutes:.0f}s"]
    return {
        "draft": [*pretrained, "--tune", "draft"],
        "full": [*pretrained, "--tune", "full", "--recipe", "finetune_small", *clock],
        "vit from scratch": ["--weights", "none", "--model", "vit_digits", *clock],
        "cnn from scratch": ["--weights", "none", "--model", "resnet10t", *clock],
    }


def done(folder: Path, words: list[str], data: Path) -> dict:
    """Train one way, or go on with it, and return its report."""
    command = [sys.executable, "-m", "vitrail.cli.main", "train"]
    goes_on = (folder / "state" / "last.safetensors").exists()
    if not goes_on:
        shutil.rmtree(folder, ignore_errors=True)  # killed before its first checkpoint: it begins anew
    command += ["--resume", str(folder)] if goes_on else [str(data), *words, "--out", str(folder)]
    finished = subprocess.run([*command, "--json"], capture_output=True, text=True)
    if finished.returncode:
        sys.exit(finished.stderr)
    return json.loads(finished.stdout)


def row(name: str, report: dict) -> str:
    """Return one line of the table."""
    score, honest = report["test"]["accuracy"], report["calibration"]
    ratio = honest["ece_after"] / honest["ece_noise"] if honest["ece_noise"] else float("nan")
    return (
        f"| {name} | {report['model']} | {score['value']:.1%} | {score['low']:.1%} to {score['high']:.1%} | "
        f"{report['test']['pictures']:,} | {report['seconds']:.0f} | {honest['ece_before']:.1%} | "
        f"{honest['ece_after']:.1%} | {honest['ece_noise']:.1%} | {ratio:.2f} |"
    )


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--minutes", type=float, default=20.0)
    words.add_argument("--weights", default=str(SHARED / "weights" / "dinov2-small-saliency"))
    words.add_argument("--data", type=Path, default=SHARED / "data" / "cifar10-10k.zip")
    words.add_argument("--out", type=Path, default=Path("runs/bench-cifar"))
    words.add_argument("--only", default="")
    asked = words.parse_args()
    if not asked.data.exists():
        print(f"skipped: {asked.data.name} is not here")
        return
    folder = asked.out / f"{asked.minutes:g}-minutes"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for name, options in ways(asked.weights, asked.minutes).items():
        if name in results or (asked.only and name not in asked.only.split(",")):
            continue
        results[name] = done(folder / name.replace(" ", "-"), options, asked.data)
        kept.write_text(json.dumps(results))
        print(f"{name}: {results[name]['seconds']:.0f} s", file=sys.stderr, flush=True)
    print(machine())
    print(
        "| way | network | right | 95 % interval | images | s | ECE before | after | noise | after / noise |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, found in results.items():
        print(row(name, found))


if __name__ == "__main__":
    main()
