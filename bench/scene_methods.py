"""Classifiers and scores of the simulated scene: forests on pixels and on windows, a small network, blocks apart."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pyogrio.raw
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn

from bench.simulated_scene import CLASSES, SPLITS
from vitrail.data.rasters.stack import open_stack

Values = NDArray[np.float32]  # (height, width, bands)
Classes = NDArray[np.uint8]  # (height, width)

FILES = ("s1.tif", "s2_10m.tif", "s2_20m.tif")
WINDOW = 8
UNIT = 32
"""Pixels of the blocks that intervals resample: some lengths of the rule, and more of them than blocks of a split."""

DRAWS = 1000
FAR = 10.0
"""Points of accuracy that the pixelwise forest must stay below the rule, and below those that see neighbourhoods."""


class Task(NamedTuple):
    """A scene as it was written: its bands, the labels for training, the truth, and the pixels of each part."""

    values: Values
    labels: Classes
    truth: Classes
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


class Scores(NamedTuple):
    """Scores in percent of the tested pixels, against the truth without noise."""

    overall: float
    low: float
    high: float
    average: float
    kappa: float
    macro_f1: float


class Forest(NamedTuple):
    """The map of a forest, its number of nodes, and the seconds of training and of prediction."""

    classes: Classes
    nodes: int
    training: float
    prediction: float


def read(folder: Path) -> Task:
    """Return a scene from its files; what trains is what the polygons cover, what is tested has a label there."""
    stack = open_stack(folder, "|".join(FILES))
    labels, truth, splits = (_plane(folder / f"{name}.tif") for name in ("labels", "truth", "splits"))
    drawn = covered(folder / "training.gpkg", truth.shape) & (truth > 0)
    parts = (drawn & (splits == SPLITS.index(name)) for name in ("train", "test"))
    return Task(stack.read(stack.grid.whole), labels, truth, *parts)


def _plane(path: Path) -> Classes:
    with rasterio.open(path) as opened:
        plane: Classes = opened.read(1)
    return plane


def covered(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels whose centre a polygon holds."""
    with rasterio.open(path.with_name("labels.tif")) as grid:
        transform = grid.transform
    outlines = shapely.from_wkb(pyogrio.raw.read(path)[2])
    burnt: NDArray[np.bool_] = (
        rasterize(((one, 1) for one in outlines), out_shape=shape, transform=transform) > 0
    )
    return burnt


def score(found: Classes, task: Task, seed: int = 0) -> Scores:
    """Return the scores of a map; the interval is that of resampled blocks (95 %)."""
    rows, cols = np.nonzero(task.test)
    truth, said = task.truth[rows, cols].astype(int) - 1, found[rows, cols].astype(int) - 1
    number = len(CLASSES)
    table = np.zeros((number, number + 1))  # the last column: no class
    np.add.at(table, (truth, np.where(said < 0, number, said)), 1)
    hits, there, named = np.diagonal(table), table.sum(1), table[:, :number].sum(0)
    overall = hits.sum() / table.sum()
    chance = float((there * named).sum() / table.sum() ** 2)
    _, block = np.unique(rows // UNIT * 10_000 + cols // UNIT, return_inverse=True)
    right, pixels = np.bincount(block, truth == said), np.bincount(block)
    drawn = np.random.default_rng(seed).integers(len(pixels), size=(DRAWS, len(pixels)))
    low, high = np.quantile(right[drawn].sum(1) / pixels[drawn].sum(1), (0.025, 0.975))
    f1 = 2 * hits / np.maximum(there + named, 1)
    shares = (overall, low, high, (hits / there).mean(), (overall - chance) / (1 - chance), f1.mean())
    return Scores(*(100 * float(share) for share in shares))


def windowed(values: Values) -> Values:
    """Return each pixel with mean, deviation, minimum and maximum of its window of 8 x 8, band by band."""
    size = (WINDOW, WINDOW, 1)
    mean = uniform_filter(values, size)
    spread = np.sqrt(np.maximum(uniform_filter(values.astype(np.float64) ** 2, size) - mean**2, 0))
    every = (values, mean, spread, minimum_filter(values, size), maximum_filter(values, size))
    return np.concatenate(every, axis=2).astype(np.float32)


def forest(task: Task, values: Values, seed: int = 0) -> Forest:
    """Train a forest on the labels of the training pixels, and map the scene."""
    begun = perf_counter()
    trees = RandomForestClassifier(100, min_samples_leaf=3, n_jobs=-1, random_state=seed)
    trees.fit(values[task.train], task.labels[task.train])
    trained = perf_counter()
    said = trees.predict(values.reshape(-1, values.shape[2])).reshape(task.labels.shape)
    nodes = sum(tree.tree_.node_count for tree in trees.estimators_)
    return Forest(said.astype(np.uint8), nodes, trained - begun, perf_counter() - trained)


def small_network(task: Task, seed: int = 0, steps: int = 500, side: int = 40) -> Classes:
    """Train a small convolutional network that sees 8 x 8 pixels around each one, and map the scene."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    seen = task.values[task.train]
    scaled = (task.values - seen.mean(0)) / seen.std(0)
    pads = (WINDOW // 2, WINDOW // 2 - 1)  # the pixel is at index 4 of its window
    images = torch.from_numpy(np.pad(scaled, (pads, pads, (0, 0)), mode="reflect")).permute(2, 0, 1)
    truths = torch.from_numpy(np.where(task.train, task.labels.astype(np.int64) - 1, -100))
    network = _layers(images.shape[0])
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    height, width = truths.shape
    more = side + WINDOW - 1
    for _ in range(steps):
        places = draw.integers(0, (height - side, width - side), (8, 2)).tolist()
        batch = torch.stack([images[:, row : row + more, col : col + more] for row, col in places])
        target = torch.stack([truths[row : row + side, col : col + side] for row, col in places])
        loss: Tensor = nn.functional.cross_entropy(network(batch), target, ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        return (network.eval()(images[None])[0].argmax(0).numpy() + 1).astype(np.uint8)


def _layers(bands: int) -> nn.Sequential:
    """Four convolutions that see 8 x 8 pixels, and one over their channels."""
    layers: list[nn.Module] = []
    for inner, outer, kernel in ((bands, 32, 3), (32, 48, 3), (48, 64, 3), (64, 96, 2)):
        layers += [nn.Conv2d(inner, outer, kernel), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(96, len(CLASSES), 1))


def check(folder: Path) -> None:
    """Print what a rule, forests and a small network reach; exit with 1 if pixels alone, or nothing, are enough."""
    task = read(folder)
    print(f"Simulation: {task.train.sum():,} pixels with labels train, {task.test.sum():,} are tested")
    maps = {
        "rule": task.truth,
        "rule with the noise of the labels": task.labels,
        "one class": np.full_like(task.truth, np.bincount(task.labels[task.train]).argmax()),
        "forest on pixels": forest(task, task.values).classes,
        "forest on 8 x 8 windows": forest(task, windowed(task.values)).classes,
        "small convolutional network on 8 x 8 windows": small_network(task),
    }
    scores = {name: score(found, task) for name, found in maps.items()}
    print("| simulation | overall accuracy | average accuracy | kappa |\n|---|---|---|---|")
    for name, one in scores.items():
        print(
            f"| {name} | {one.overall:.1f} % ({one.low:.1f} – {one.high:.1f}) | {one.average:.1f} % | {one.kappa:.1f} |"
        )
    alone = scores["forest on pixels"].overall
    if scores["rule with the noise of the labels"].overall - alone < FAR:
        sys.exit("The scene is too easy: the forest on pixels comes too near to the rule.")
    if scores["small convolutional network on 8 x 8 windows"].overall - alone < FAR:
        sys.exit(
            "The scene hides its rule: a network that sees neighbourhoods finds hardly more than pixels do."
        )
