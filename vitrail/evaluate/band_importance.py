"""Which bands a model needs: how much accuracy is lost when one band is exchanged between the test images.

Permutation importance (Breiman 2001, Machine Learning 45, section 10): the values of a band stay what they are, pixels
of one image keep together, and only their tie to the truth is cut. Bands that tell the same share their importance, so
all bands of one sensor are exchanged together as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import RunError
from vitrail.data.doctor import workers
from vitrail.data.labels import count
from vitrail.data.loader import load_for
from vitrail.data.manifest import Row, group_key
from vitrail.data.preprocess import Preprocess
from vitrail.infer.predictor import Predictor, Ready, Request
from vitrail.metrics.intervals import Score, resampled_mean, units_of
from vitrail.tasks.resampling import resampling_of, told
from vitrail.tasks.result import Bars, Number

MOST = 2000
"""Images that are asked at most; more of them, drawn at random, would only narrow the intervals."""

VALUES, LEAST = 1 << 24, 200
"""Values of inputs above which fewer images are asked, because large inputs take long, and how many at least."""

REPEATS = 3
"""How often a band is exchanged."""

BATCH = 64

RADAR = ("VV", "VH", "HH", "HV")
"""Polarisations, with which names of radar bands begin."""

RIGHT, SHARE = "right", "accuracy"
"""The values of an image that tell its accuracy: whether it is right, or the share of its pixels that are."""

HEADING = "Which bands it needs"

Array = NDArray[np.float64]


class Drop(NamedTuple):
    """The accuracy that is lost without some bands (a share, below 0 where it rises), under the name of the bands."""

    name: str
    bands: tuple[str, ...]
    lost: Score

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"name": self.name, "bands": list(self.bands), **self.lost.to_dict()}


class BandImportance(NamedTuple):
    """What each band, and each group of bands, is worth: the largest loss first.

    `images` of `whole` were asked; `resampling` says what the intervals resample (`vitrail.tasks.resampling`).
    """

    drops: tuple[Drop, ...]
    accuracy: float
    images: int
    whole: int
    resampling: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for report.json."""
        return {
            "accuracy": round(self.accuracy, 6),
            "pictures": self.images,
            "repeats": REPEATS,
            **({"resampling": dict(self.resampling)} if self.resampling else {}),
            "bands": [one.to_dict() for one in self.drops],
        }

    def section(self) -> Bars:
        """Return the section of the report."""
        bars = {one.name: Number.of(one.lost.to_dict()) for one in self.drops}
        images = "all" if self.images == self.whole else f"{self.images:,} of {self.whole:,}"
        weak = [
            one.name for one in self.drops if one.lost.low is not None and one.lost.low < 1e-9
        ]  # rounding
        note = [
            f"Accuracy that is lost when a band is exchanged between images, {REPEATS} times, on {images} test "
            f"images; as they are, {100 * self.accuracy:.1f} % are right. Lines are 95 % intervals.",
            "Bands that tell the same can stand in for one another, so each may seem dispensable.",
            *([f"The interval includes nothing lost: {', '.join(weak)}."] if weak else []),
            *told({"resampling": self.resampling}),
        ]
        return Bars(HEADING, bars, "accuracy lost, points", " ".join(note))


class _Inputs(NamedTuple):
    """Prepared test images: their rows, inputs without pixels, and all pixels (n, bands, height, width)."""

    rows: Sequence[Row]
    ready: Sequence[Ready]
    truths: Sequence[Any]
    pixels: Tensor


def can_measure(predictor: Predictor) -> bool:
    """Return whether a model reads named bands, at least two, at one size of input."""
    steps = predictor.preprocess
    return len(steps.bands) > 1 and steps.zoom is None and _score(predictor) != ""


def band_importance(
    predictor: Predictor,
    rows: Sequence[Row],
    root: Path,
    seed: int = 0,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> BandImportance:
    """Return what each band is worth to a model on test images, and each group of bands (default: by `sensors`).

    Raises:
        RunError: the model has no named bands, or its task does not say which images are right.
        DataError: an image can no longer be read.
    """
    if not can_measure(predictor):
        raise RunError(
            f"{predictor.path} reads no named bands that could be exchanged. Train a model on a raster, with a task "
            "that predicts classes, labels or masks."
        )
    steps = predictor.preprocess
    inputs = _inputs(predictor, _sample(steps, rows, seed), root)
    wanted: dict[str, tuple[str, ...]] = {name: (name,) for name in steps.band_names}
    wanted |= {name: tuple(some) for name, some in (sensors(steps) if groups is None else groups).items()}
    plain = _right(predictor, inputs, inputs.pixels)
    orders = _orders(len(inputs.rows), seed)
    units = units_of([group_key(row) for row in inputs.rows])
    drops = []
    for name, some in wanted.items():
        places = [steps.band_names.index(one) for one in some]
        moved = (_exchanged(inputs.pixels, places, order) for order in orders)
        left = np.mean([_right(predictor, inputs, pixels) for pixels in moved], axis=0)
        drops.append(Drop(name, some, resampled_mean((plain - left).tolist(), units)))
    ordered = tuple(sorted(drops, key=lambda one: -(one.lost.value or 0.0)))
    resampling = resampling_of(inputs.rows, {})
    return BandImportance(ordered, float(plain.mean()), len(inputs.rows), len(rows), resampling)


def sensors(steps: Preprocess) -> dict[str, tuple[str, ...]]:
    """Return the bands of radar and all others, under a name each; empty if there is only one kind."""
    radar = tuple(name for name in steps.band_names if name.rpartition(" ")[2].upper().startswith(RADAR))
    other = tuple(name for name in steps.band_names if name not in radar)
    if not radar or not other:
        return {}
    kinds = {
        f"radar ({count(len(radar), 'band')})": radar,
        f"all others ({count(len(other), 'band')})": other,
    }
    return {name: some for name, some in kinds.items() if len(some) > 1}


def _score(predictor: Predictor) -> str:
    """Return the value of each image that is its accuracy, "" if the task has none."""
    evaluation = predictor.task.evaluation()
    if hasattr(evaluation, RIGHT):
        return RIGHT
    return SHARE if SHARE in evaluation.scores() else ""


def _sample(steps: Preprocess, rows: Sequence[Row], seed: int) -> list[Row]:
    """Return the rows that are asked, in order."""
    most = max(LEAST, min(MOST, VALUES // (len(steps.bands) * steps.size[0] * steps.size[1])))
    if len(rows) <= most:
        return list(rows)
    chosen = np.random.default_rng(seed).choice(len(rows), most, replace=False)
    return [rows[place] for place in np.sort(chosen).tolist()]


def _orders(images: int, seed: int) -> list[Tensor]:
    """Return permutations of the images, the same for every band."""
    draw = np.random.default_rng(seed)
    return [torch.from_numpy(draw.permutation(images)) for _ in range(REPEATS)]


def _inputs(predictor: Predictor, rows: Sequence[Row], root: Path) -> _Inputs:
    def ready(row: Row) -> Ready:
        made = predictor.ready(load_for(predictor.preprocess, root, row))
        return made._replace(image=np.empty((0, 0, 0), np.uint8))

    with ThreadPoolExecutor(workers()) as pool:
        prepared = list(pool.map(ready, rows))
    truths = [predictor.task.read(row, root) for row in rows]
    pixels = torch.stack([one.pixels for one in prepared])
    return _Inputs(rows, [one._replace(pixels=torch.empty(0)) for one in prepared], truths, pixels)


def _exchanged(pixels: Tensor, places: Sequence[int], order: Tensor) -> Tensor:
    """Return the inputs with some bands of other images."""
    moved = pixels.clone()
    moved[:, places] = pixels[order][:, places]
    return moved


def _right(predictor: Predictor, inputs: _Inputs, pixels: Tensor) -> Array:
    """Return the accuracy of each image: 0 or 1, or the share of its pixels."""
    evaluation = predictor.task.evaluation()
    request = Request(predictor.point)
    for start in range(0, len(inputs.rows), BATCH):
        part = slice(start, start + BATCH)
        ready = [
            one._replace(pixels=some) for one, some in zip(inputs.ready[part], pixels[part], strict=True)
        ]
        output = predictor.outputs(ready, request)
        evaluation.update(inputs.rows[part], output, inputs.truths[part], [one.geometry for one in ready])
    right: Array = evaluation.per_image()[_score(predictor)].astype(np.float64)
    return right
