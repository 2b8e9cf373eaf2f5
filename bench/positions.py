"""The position ablation of ViT (table 8) on CIFAR-10: four runs of one recipe, alike but for one word.

Accuracy on the test split with its interval, and the paper's own metric: closed-form linear few-shot on frozen
features, five images a class, three draws. `python -m bench.positions --epochs 60`; what is finished is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from bench.kept import CIFAR, Kept, percent
from bench.pairs import machine
from vitrail.data.loader import ImageDataset, Share, evaluation
from vitrail.data.manifest import TEST, TRAIN, Manifest
from vitrail.evaluate.few_shot import few_shot
from vitrail.infer.predictor import Predictor
from vitrail.runs.run import Run
from vitrail.runs.train_options import TrainOptions
from vitrail.training.fit import train

VARIANTS = ("none", "1d", "2d", "relative")
PAPER = {"none": 0.61382, "1d": 0.64206, "2d": 0.64001, "relative": 0.64032}
"""ViT-B/16, ImageNet 5-shot, as published (arXiv:2010.11929, table 8); another network, another data set."""


@torch.inference_mode()
def features(predictor: Predictor, manifest: Manifest, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors that the classifier reads, and the classes."""
    pictures = ImageDataset(manifest.rows(split), manifest.root, predictor.preprocess, predictor.task)
    vectors, truth = [], []
    for batch in evaluation(pictures, 256, Share()):
        vectors.append(predictor.network.head.pool(predictor.network.encoder(batch.images)))
        truth += batch.targets
    return torch.cat(vectors).numpy(), np.array(truth)


def measured(run: Run) -> dict[str, Any]:
    """Return the scores of a trained run."""
    predictor, manifest = Predictor(run.folder, "cpu"), run.manifest(run.root())
    (learnt, classes), (held, truth) = (features(predictor, manifest, split) for split in (TRAIN, TEST))
    shots = {str(number): few_shot(learnt, classes, held, truth, shots=number) for number in (5, 10)}
    return {"accuracy": json.loads(run.report_path.read_text())["test"]["accuracy"], "shots": shots}


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.positions")
    words.add_argument("--epochs", type=int, default=60)
    words.add_argument("--only", nargs="*", choices=VARIANTS, default=VARIANTS)
    words.add_argument("--out", type=Path, default=Path("runs/positions"))
    asked = words.parse_args()
    if not CIFAR.exists():
        print("skipped: ../shared/data/cifar10-10k.zip is not here")
        return
    kept = Kept(asked.out / "results.json", {"epochs": asked.epochs})
    for position in asked.only:
        if position in kept.rows:
            continue
        options = TrainOptions(
            recipe="position_ablation",
            network=f"position={position}",
            epochs=asked.epochs,
            out=str(asked.out / position),
        )
        kept.add(position, measured(train(CIFAR, options)))
    print(machine())
    print(
        "| positions | right on the test split | 5-shot, mean of 3 draws | 10-shot | paper, 5-shot ImageNet |"
    )
    print("|---|---|---|---|---|")
    for position in (name for name in VARIANTS if name in kept.rows):
        row = kept.rows[position]
        five, ten = (mean(row["shots"][number]) for number in ("5", "10"))
        print(f"| {position} | {percent(row['accuracy'])} | {five:.1%} | {ten:.1%} | {PAPER[position]:.1%} |")


if __name__ == "__main__":
    main()
