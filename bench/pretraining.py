"""What masked pretraining on unlabelled images brings: fine-tuned on a few labels, against from scratch on the same.

`python -m bench.pretraining ../shared/data/cifar10-10k.zip [--pretrain 20] [--minutes 4] [--seeds 3] [--out FOLDER]`

Takes one image in five of each class away as test images: neither pretraining nor any other training sees them. The
others are pretrained on without labels (`--task pretrain`). Then, for each seed, 500 of them get their labels back (a
fifth of these choose the best epoch), and two networks of the same size are trained on them for the same minutes: one
begins with the pretrained encoder, one with random weights, each with the recipe that it has by itself. Prints both
accuracies on the test images and the paired difference with its interval over images and trainings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vitrail
from bench.pairs import machine
from vitrail.data.manifest import TEST
from vitrail.evaluate.collect_answers import evaluate
from vitrail.metrics.paired_difference import over_seeds
from vitrail.runs.run import Run

TESTED = 5
"""One image in so many is a test image."""

LABELLED, CHOOSING = 500, 100
"""Images with labels of one seed, and those among them that choose the best epoch."""


def main() -> None:
    """Pretrain, fine-tune and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive")
    parser.add_argument("--model", default="mae_cifar")
    parser.add_argument("--network", default="width=128,depth=6,heads=4", help="settings of the network")
    parser.add_argument("--pretrain", type=float, default=20, help="minutes without labels")
    parser.add_argument("--minutes", type=float, default=4, help="minutes of each training with labels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="pretraining-run")
    asked = parser.parse_args()
    out = Path(asked.out)
    classes = _unpacked(Path(asked.archive), out / "images")
    scratch = {"model": asked.model, "network": asked.network, "weights": "none"}
    unlabelled = _unlabelled(classes, out / "unlabelled")
    pretrained = _trained(unlabelled, out / "pretrained", asked.pretrain, task="pretrain", **scratch)
    explained = json.loads(pretrained.report_path.read_text())["test"]
    print("pretraining, held-out images:", json.dumps(explained)[:400])
    rights: dict[str, list[list[float]]] = {"pretrained": [], "from scratch": []}
    for seed in range(asked.seeds):
        data = _labelled(classes, out / f"labelled-{seed}", seed)
        starts: Mapping[str, Mapping[str, Any]] = {
            "pretrained": {"weights": str(pretrained.folder), "tune": "full"},
            "from scratch": scratch,
        }
        for name, start in starts.items():
            run = _trained(data, out / f"{name.replace(' ', '-')}-{seed}", asked.minutes, seed=seed, **start)
            rights[name].append(_right(run, data))
            print(f"seed {seed}, {name}: {100 * np.mean(rights[name][-1]):.1f} %", flush=True)
    _say(rights)


def _say(rights: Mapping[str, list[list[float]]]) -> None:
    one, other = (np.asarray(rights[name]) for name in ("pretrained", "from scratch"))
    found = over_seeds(one - other, np.arange(one.shape[1]))
    low, high = found.interval()
    print(f"{len(one)} seeds, {one.shape[1]} test images")
    print(f"pretrained {100 * one.mean():.1f} %, from scratch {100 * other.mean():.1f} %")
    print(f"difference {100 * found.value:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}")
    print(machine())


def _unpacked(archive: Path, folder: Path) -> dict[str, list[Path]]:
    """Return the images of each class in natural order."""
    if not folder.exists():
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.jpg")):
        found.setdefault(path.parent.name, []).append(path)
    return found


def _tests(paths: Sequence[Path]) -> list[Path]:
    return list(paths[::TESTED])


def _others(paths: Sequence[Path]) -> list[Path]:
    return [path for at, path in enumerate(paths) if at % TESTED]


def _unlabelled(classes: Mapping[str, list[Path]], folder: Path) -> Path:
    """Write the images of all classes into one folder, their names without a class."""
    number = 0
    for paths in classes.values():
        for path in _others(paths):
            _copied(path, folder / f"{number:05}.jpg")
            number += 1
    print(
        f"{number} images without labels, {sum(len(_tests(paths)) for paths in classes.values())} held back"
    )
    return folder


def _labelled(classes: Mapping[str, list[Path]], folder: Path, seed: int) -> Path:
    """Write the labelled images of a seed and all test images as train, val and test folders."""
    draw = np.random.default_rng(seed)
    each, choosing = LABELLED // len(classes), CHOOSING // len(classes)
    for name, paths in classes.items():
        others = _others(paths)
        drawn = [others[at] for at in draw.permutation(len(others))[:each]]
        for split, some in (
            ("val", drawn[:choosing]),
            ("train", drawn[choosing:]),
            ("test", _tests(paths)),
        ):
            for path in some:
                _copied(path, folder / split / name / path.name)
    return folder


def _copied(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def _trained(data: Path, out: Path, minutes: float, **options: Any) -> Run:
    return vitrail.train(data, vitrail.TrainOptions(out=str(out), time=f"{60 * minutes:.0f}s", **options))


def _right(run: Run, data: Path) -> list[float]:
    """Return 1 or 0 for each test image, in natural order of their names."""
    rows = sorted(run.manifest(data).rows(TEST), key=lambda row: row.id)
    found = evaluate(vitrail.load(run), rows, data)
    return [float(one) for one in found.per_image()["right"]]


if __name__ == "__main__":
    main()
