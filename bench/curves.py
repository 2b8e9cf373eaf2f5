"""Does the 80 % interval of a learning curve hold what comes true? CIFAR-10, heads on frozen features of ViT-S/14.

`python -m bench.curves [--redraws 100] [--imgsz 56]`. Wants ../shared beside the repository. 2,000 images are held out
of everything. Each redraw is a person who has 2,500 images to learn from and 625 of their own to test on, drawn from
the other 8,000: sizes 250, 625, 1,250 (three draws each) and 2,500 are scored and drawn on as `vitrail curve` does.
What came true is the error, on the 2,000, of a head from 5,000 images (one of twenty such), and from all 8,000:
10,000 cannot be tried, for nothing would be left to test on. The gain that came true is from the person's own head.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.pairs import machine
from vitrail.data.prepare import prepare
from vitrail.metrics.learning_curve import Points, fit_curve
from vitrail.runs.device import device_for
from vitrail.runs.train_options import TrainOptions
from vitrail.studies.learning_curves import REDRAWS, Parts, redrawn_points, stratified
from vitrail.training.draft import ProbeData, probe_data
from vitrail.training.feature_cache import Frozen
from vitrail.training.initialization import build_from_recipe
from vitrail.training.linear_probe import fit_head
from vitrail.training.resolve_recipe import plan

SHARED = Path(__file__).resolve().parents[2] / "shared"
HELD, OWN, OWN_TEST = 2_000, 2_500, 625
FAR = (5_000, 8_000)
HEADS = {5_000: 20, 8_000: 1}


def features(data: Path, weights: Path, size: str) -> tuple[Any, np.ndarray, ProbeData]:
    """Return the probe, the features of all images, and their truths."""
    prepared = prepare(data)
    recipe = plan(str(data), prepared, TrainOptions(weights=str(weights), imgsz=size)).recipe
    start = build_from_recipe(recipe, prepared.manifest.truth)
    rows = prepared.manifest.rows()
    frozen = Frozen(start.network.encoder, start.preprocess, device_for("cpu"))
    vectors = frozen.vectors(prepared.manifest, rows)
    return start.task.probe, vectors, probe_data(start, start.task.probe, rows, prepared.manifest)


class World:
    """All images: who may have them, and which are held out."""

    def __init__(self, probe: Any, vectors: np.ndarray, data: ProbeData) -> None:
        self.probe, self.vectors, self.data = probe, vectors, data
        draw = np.random.default_rng(0)
        held = stratified(data.truth, data.groups, HELD / len(vectors), draw)
        self.held, self.pool = held, np.setdiff1d(np.arange(len(vectors)), held)

    def some(self, number: int, draw: np.random.Generator) -> np.ndarray:
        truth, groups = self.data.truth[self.pool], self.data.groups[self.pool]
        return self.pool[stratified(truth, groups, number / len(self.pool), draw)]

    def missed(self, places: np.ndarray) -> np.ndarray:
        """Return which held images a head from these places gets wrong."""
        head = fit_head(self.probe, self.vectors[places], self.data.truth[places], self.data.groups[places])
        return self.probe.wrong(head.logits(self.vectors[self.held]), self.data.truth[self.held])

    def person(self, number: int) -> tuple[Parts, np.ndarray]:
        """Return the images of one person, and the places they learn from."""
        draw = np.random.default_rng(number)
        own = self.some(OWN + OWN_TEST, draw)
        truth, groups = self.data.truth[own], self.data.groups[own]
        test = stratified(truth, groups, OWN_TEST / len(own), draw)
        learn = np.setdiff1d(np.arange(len(own)), test)
        return Parts(self.vectors[own], ProbeData([], [], truth, groups), learn, test), own[learn]


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--redraws", type=int, default=100)
    words.add_argument("--imgsz", default="56")
    words.add_argument("--data", type=Path, default=SHARED / "data" / "cifar10-10k.zip")
    words.add_argument("--weights", type=Path, default=SHARED / "weights" / "dinov2-small-saliency")
    words.add_argument(
        "--keep",
        type=Path,
        help="an .npz for what was measured; one that is there is read in place of measuring",
    )
    asked = words.parse_args()
    if not asked.data.exists() or not asked.weights.exists():
        print("skipped: ../shared/data/cifar10-10k.zip or ../shared/weights is not here")
        return
    if asked.keep and asked.keep.exists():
        measured = dict(np.load(asked.keep))
    else:
        measured = measure(World(*features(asked.data, asked.weights, asked.imgsz)), asked.redraws)
        if asked.keep:
            np.savez(asked.keep, **measured)
    told(foretold(measured), asked.imgsz, len(measured["now"]))


def measure(world: World, redraws: int) -> dict[str, np.ndarray]:
    """Score the heads of all persons, and what came true: errors of heads from more images, and of their own."""
    draw, began = np.random.default_rng(1), time.monotonic()
    came = {
        f"came{size}": np.array([world.missed(world.some(size, draw)).mean() for _ in range(heads)])
        for size, heads in HEADS.items()
    }
    wrong, sizes, now = {}, [], []
    for number in range(redraws):
        parts, learnt = world.person(number)
        points = redrawn_points(world.probe, parts, number)
        now.append(world.missed(learnt).mean())
        sizes.append(points.sizes)
        wrong[f"wrong{number}"] = np.concatenate([one.astype(bool) for one in points.wrong])
        if number % 10 == 9:
            print(f"{number + 1} redraws, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return {**came, **wrong, "sizes": np.array(sizes), "now": np.array(now)}


def foretold(measured: dict[str, np.ndarray]) -> np.ndarray:
    """Return a row a person and size: size, error and gain that came true, error and gain foretold (three each)."""
    found = []
    ends = np.cumsum([REDRAWS] * (measured["sizes"].shape[1] - 1))
    for number, now in enumerate(measured["now"]):
        wrong = measured[f"wrong{number}"]
        parts = tuple(np.split(wrong.astype(float), ends))
        forecast = fit_curve(
            Points(measured["sizes"][number], parts, np.arange(wrong.shape[1])), FAR, seed=number
        )
        assert forecast is not None
        for size in FAR:
            came = measured[f"came{size}"]
            true = came[number % len(came)]
            found.append((size, true, now - true, *forecast.error(size), *forecast.gain(size)))
    return np.array(found)


def told(found: np.ndarray, imgsz: str, redraws: int) -> None:
    """Print the table: how often the intervals held what came true, and how wide they are."""
    print(f"{machine()}; ViT-S/14 at {imgsz} px, {redraws} redraws")
    print("| images | error that came true | held by the error's interval | width | gain that came true | "
          "held by the gain's interval | width | below | above |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for size in FAR:
        _, true, gain, low, _, high, least, _, most = found[found[:, 0] == size].T
        error, gained = (low <= true) & (true <= high), (least <= gain) & (gain <= most)
        cells = [
            f"{true.mean():.1%}", f"{error.mean():.0%}", f"{100 * (high - low).mean():.1f}", f"{100 * gain.mean():.1f}",
            f"{gained.mean():.0%}", f"{100 * (most - least).mean():.1f}", f"{(gain < least).mean():.0%}",
            f"{(gain > most).mean():.0%}",
        ]  # fmt: skip
        print(f"| {size:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
