"""Planted wrong labels: how many the top of the list holds, and what fixing them brings on an untouched test set.

`python -m bench.fix [--images 10000] [--seeds 3] [--epochs 100] [--weights PATH]`. CIFAR-10 with a frozen ViT-S/14; 5 %
of the training and validation labels are replaced by another class (test labels stay). A draft is made of them,
`vitrail fix` lists, and a reviewer who knows the truth decides about the top 5 % of the list: relabels what was
planted, keeps the rest. Then clean digits, where hardly a label may be doubted, by a network trained on them from
scratch. Wants ../shared.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from bench.pairs import machine
from vitrail.metrics.intervals import wilson

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIZE = "112"
SHARE = 0.05


def extracted(archive: Path, folder: Path, images: int) -> None:
    """Write so many images, evenly from every class, as folder/CLASS/NAME."""
    with zipfile.ZipFile(archive) as source:
        by_class = defaultdict(list)
        for name in sorted(source.namelist()):
            if name.lower().endswith((".png", ".jpg")):
                by_class[name.split("/")[-2]].append(name)
        for label, names in by_class.items():
            (folder / label).mkdir(parents=True)
            for name in names[: images // len(by_class)]:
                (folder / label / Path(name).name).write_bytes(source.read(name))


def called(*words: object) -> dict:
    """Return what a vitrail command prints as JSON."""
    command = [sys.executable, "-m", "vitrail.cli.main", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def planted(clean: Path, folder: Path, seed: int) -> tuple[Path, dict[str, str]]:
    """Write a table with a fixed split and 5 % wrong labels outside the test part; return it with the true labels."""
    draw = np.random.default_rng(seed)
    files = sorted(clean.glob("*/*"))
    labels = sorted({file.parent.name for file in files})
    order = draw.permutation(len(files))
    test = set(order[: round(0.15 * len(files))].tolist())
    val = set(order[round(0.15 * len(files)) : round(0.30 * len(files))].tolist())
    others = [i for i in order.tolist() if i not in test]
    wrong = set(draw.permutation(others)[: round(SHARE * len(others))].tolist())
    folder.mkdir()
    truth = {}
    with (folder / "labels.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["path", "label", "split"])
        for i, file in enumerate(files):
            label, name = file.parent.name, f"{i:05}{file.suffix}"
            if i in wrong:
                truth[name] = label
                label = str(draw.choice([one for one in labels if one != label]))
            shutil.copy(file, folder / name)
            split = "test" if i in test else "val" if i in val else "train"
            table.writerow([name, label, split])
    return folder / "labels.csv", truth


def reviewed(table: Path, truth: dict[str, str], most: int) -> tuple[list[bool], Path]:
    """Fill in the decisions of a reviewer who knows the truth, on the first images; return which were planted."""
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    hits = []
    for row in rows[:most]:
        true = truth.get(Path(row["id"]).name)
        hits.append(true is not None)
        row["decision"], row["new_label"] = ("relabel", true) if true else ("keep", "")
    filled = table.with_name("filled.csv")
    with filled.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return hits, filled


def one_seed(clean: Path, place: Path, weights: str, seed: int) -> str:
    """Plant, draft, list, review, fix; return one line of the table."""
    table, truth = planted(clean, place / f"planted{seed}", seed)
    run = place / f"run{seed}"
    draft = ["train", table, "--weights", weights, "--imgsz", SIZE, "--tune", "draft"]
    called(*draft, "--out", run)
    listed = called("fix", run)
    hits, filled = reviewed(Path(listed["table"]), truth, round(SHARE * listed["images"]))
    after = called("fix", run, "--apply", filled)["comparison"]
    doubted = {Path(one["id"]).name for one in listed["entries"] if one["why"] == "doubted"}
    difference = after["difference"]
    return (
        f"| {seed} | {listed['images']:,} | {len(truth)} | {sum(hits) / len(truth):.1%} | {sum(hits[:50]) / 50:.0%} | "
        f"{len(doubted)} ({sum(one in truth for one in doubted)} planted) | {after['before']['value']:.1%} | "
        f"{after['after']['value']:.1%} | {100 * difference['value']:+.1f} ({100 * difference['low']:+.1f} to "
        f"{100 * difference['high']:+.1f}) | {after['tested']:,} |"
    )


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--images", type=int, default=10_000)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--epochs", type=int, default=100)
    words.add_argument("--weights", default=str(SHARED / "weights" / "dinov2-small-saliency"))
    asked = words.parse_args()
    archive = SHARED / "data" / "cifar10-10k.zip"
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if archive.exists() and Path(asked.weights).exists():
            extracted(archive, place / "clean", asked.images)
            print(
                "| seed | labels | planted | in the top 5 % | right of the first 50 | doubted | before | after | "
                "points | test |"
            )
            print("|---|---|---|---|---|---|---|---|---|---|")
            for seed in range(asked.seeds):
                print(one_seed(place / "clean", place, asked.weights, seed), flush=True)
        else:
            print("skipped: ../shared is not here")
        if not asked.epochs:
            return
        called("train", "digits", "--epochs", asked.epochs, "--out", place / "digits")
        found = called("fix", place / "digits")
        share = wilson(found["doubted"], found["images"])
        print(f"clean digits: {found['doubted']} of {found['images']:,} doubted ({share})")


if __name__ == "__main__":
    main()
