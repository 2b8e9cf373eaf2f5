"""What makes the detector learn quickly: its settings tried on the features of a frozen network, computed once.

`python -m bench.detect_head bccd.zip --weights dinov2-small-saliency [--groups 2] [--anchor 0.15] [--rate 1e-3] …`

Training images are only flipped, as features. Every 50 steps the test split is scored. Features are kept in --cache.
"""

from __future__ import annotations

import argparse
import math
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.data.batch import Geometry
from vitrail.data.boxes import Boxes
from vitrail.data.manifest import TEST, TRAIN, Manifest, Row
from vitrail.data.open_image import load
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import prepare
from vitrail.data.preprocess import Preprocess
from vitrail.layers.tokens import Features, Tokens
from vitrail.runs.network import build_network, build_task
from vitrail.tasks.detect.task import Detect
from vitrail.weights.resolve import find_weights

SIZE = (336, 448)
BATCH = 8


class Encoded(NamedTuple):
    """A split: rows, levels (n, taps, d, row, col) in bf16, truths in shares and in pixels, and geometries."""

    rows: list[Row]
    levels: Tensor
    shares: list[Boxes]
    truths: list[Boxes]
    at: list[Geometry]


def encoded(task: Detect, manifest: Manifest, network: Any, split: str) -> Encoded:
    """Return the features of all images of a split."""
    steps, rows = Preprocess(SIZE, "squash", 1.0), manifest.rows(split)
    levels, shares, truths, at = [], [], [], []
    for start in range(0, len(rows), BATCH):
        pixels = []
        for row in rows[start : start + BATCH]:
            image, truth = load(manifest.root, row.path).image, task.read(row, manifest.root)
            view = steps.view(image.shape[:2])
            pixels.append(view.image(image))
            shares.append(task.transform(truth, view))
            truths.append(truth)
            at.append(view.geometry)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = network.encode({"images": torch.stack(pixels)})
        levels.append(torch.stack([level.bfloat16() for level in found.levels], 1))
    return Encoded(rows, torch.cat(levels), shares, truths, at)


def features(levels: Tensor) -> Features:
    """Return levels (b, taps, d, row, col) as the features of an encoder."""
    return Features(Tokens(levels[:, -1].flatten(2).transpose(1, 2)), tuple(levels.unbind(1)))


def scored(task: Detect, head: nn.Module, test: Encoded) -> dict[str, float]:
    """Return the scores of a head on a split."""
    evaluation = task.evaluation()
    for start in range(0, len(test.rows), 2 * BATCH):
        part = slice(start, start + 2 * BATCH)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            output = head(features(test.levels[part]))
        plain = {name: value.float() for name, value in output.items()}
        evaluation.update(test.rows[part], plain, test.truths[part], test.at[part])
    return {name: round(value, 3) for name, value in evaluation.scores().items()}


def fit(task: Detect, head: nn.Module, train: Encoded, test: Encoded, asked: argparse.Namespace) -> None:
    """Train the head, and print its scores every 50 steps."""
    average, draw, began = deepcopy(head).eval(), np.random.default_rng(asked.seed), time.monotonic()
    optimiser = torch.optim.AdamW(head.parameters(), lr=asked.rate, weight_decay=1e-4)
    order: list[int] = []
    for step in range(asked.steps):
        order = order if len(order) >= BATCH else draw.permutation(len(train.rows)).tolist()
        some, order = order[:BATCH], order[BATCH:]
        levels, targets = train.levels[some], task.collate([train.shares[i] for i in some])
        if draw.random() < 0.5:
            levels = levels.flip(-1)
            targets = [
                (torch.cat([1 - box[:, :1], box[:, 1:]], 1), kinds, crowd) for box, kinds, crowd in targets
            ]
        rise = min(1.0, (step + 1) / asked.warmup)
        for group in optimiser.param_groups:
            group["lr"] = asked.rate * rise * (0.01 + 0.99 * (1 + math.cos(math.pi * step / asked.steps)) / 2)
        with torch.autocast("cpu", torch.bfloat16):
            output = head(features(levels))
        task.loss(output, targets).total.backward()
        nn.utils.clip_grad_norm_(head.parameters(), asked.clip)
        optimiser.step()
        optimiser.zero_grad()
        decay = min(asked.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), head.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        if (step + 1) % 50 == 0:
            print(
                f"{step + 1:5} steps  {time.monotonic() - began:4.0f} s  {scored(task, average, test)}",
                flush=True,
            )


def main() -> None:
    """Compute or read the features, and train the detector on them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--cache", type=Path)
    for name, default in (("rate", 1e-3), ("anchor", 0.15), ("clip", 0.1), ("ema", 0.97)):
        parser.add_argument(f"--{name}", type=float, default=default)
    for name, number in (("groups", 2), ("layers", 3), ("steps", 300), ("warmup", 40), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=number)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    manifest = prepare(asked.data, LayoutOptions(), seed=0, task="detect").manifest
    stated = {"queries": 100, "groups": asked.groups, "layers": asked.layers, "anchor": asked.anchor}
    task = build_task("detect", manifest.truth, stated)
    assert isinstance(task, Detect)
    encoder = find_weights(asked.weights, "dinov2_s14").build(image=SIZE)
    network = build_network(encoder, task).eval()
    if asked.cache and asked.cache.is_file():
        train, test = torch.load(asked.cache, weights_only=False)
    else:
        train, test = (encoded(task, manifest, network, split) for split in (TRAIN, TEST))
        if asked.cache:
            torch.save((train, test), asked.cache)
    fit(task, network.head.train(), train, test, asked)


if __name__ == "__main__":
    main()
