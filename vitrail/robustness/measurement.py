"""Measure a model on a sample of images: as they are, corrupted, with patches dropped or shuffled, under attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import DataError, SettingError
from vitrail.core.seeds import derive
from vitrail.data.batch import Batch
from vitrail.data.doctor import workers
from vitrail.data.labels import shorten
from vitrail.data.manifest import Row, group_key
from vitrail.data.open_image import load
from vitrail.explainers.occlusion import cell_grid
from vitrail.infer.predictor import Predictor
from vitrail.layers.heads import Output
from vitrail.robustness.attack_target import ModelTarget, Scored, right_of, unit_pixels
from vitrail.robustness.attacks import PGDSettings, fgsm, pgd_with_restarts
from vitrail.robustness.corruptions import KINDS, SEVERITIES, corrupt
from vitrail.robustness.patches import Grid, dropped, random_order, salient_order, shuffled
from vitrail.robustness.salient_patches import saliency

BATCH = 32

SHARES = (0.25, 0.5, 0.75)
"""Shares of the patches that are dropped."""

PIECES = (2, 4, 8)
"""Pieces of a side of an image whose pieces are shuffled."""

CLEAN, CORRUPTED, DROPPED, SHUFFLED, ATTACKED = "clean", "corruption", "dropped patches", "shuffled", "attack"
RANDOM, SALIENT = "random", "most salient"
FGSM, PGD = "FGSM", "PGD"
LEVELS = 255.0
"""Epsilons are in grey values: parts of this."""

Flags = NDArray[np.bool_]
Say = Callable[[str], None]


class Disturbance(NamedTuple):
    """What is done to images: a category, a kind in it, and a strength (a severity, share, number or epsilon)."""

    category: str
    kind: str = ""
    strength: float = 0.0


UNCHANGED = Disturbance(CLEAN)


@dataclass(frozen=True)
class RobustnessSettings:
    """What is measured: epsilons in grey values of 255, how many images are attacked, on which grid (None: its own)."""

    epsilons: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    attacked: int = 100
    pgd: PGDSettings = field(default_factory=PGDSettings)
    grid: Grid | None = None
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """Whether each image of a sample is answered correctly under each disturbance, in the order of `rows`.

    Attacks have only the first images of the sample. `lasting` counts for each epsilon the images that are right after
    0, 1, … steps of PGD; the counts of a larger epsilon begin with what a smaller one left.
    """

    rows: tuple[Row, ...]
    right: dict[Disturbance, Flags]
    lasting: dict[float, NDArray[np.int64]] = field(default_factory=dict)
    grid: Grid = (1, 1)

    @property
    def groups(self) -> list[str]:
        """The group of each image: duplicates count once in intervals."""
        return [group_key(row) for row in self.rows]

    def kinds(self, category: str) -> list[str]:
        """Return the kinds that were measured of a category, in order."""
        return list(dict.fromkeys(one.kind for one in self.right if one.category == category))

    def strengths(self, category: str) -> list[float]:
        """Return the strengths that were measured of a category, in order."""
        return list(dict.fromkeys(one.strength for one in self.right if one.category == category))


def refuse_unfit(predictor: Predictor) -> None:
    """Raise a SettingError if robustness cannot be measured for the task or the images of a model."""
    task, steps = predictor.task, predictor.preprocess
    if not hasattr(task, "losses"):
        raise SettingError(
            f"Robustness is measured for answers that are right or wrong, such as classes. The task {task.name} has "
            "none (it has no `losses`). Leave out --robustness."
        )
    if steps.bands:
        raise SettingError(
            "Robustness is measured by corruptions of photographs (blur, JPEG, weather). This model reads the "
            f"bands {shorten(steps.band_names)}, for which those mean nothing. Leave out --robustness."
        )
    if steps.raw or steps.channels not in {1, 3, 4} or steps.zoom is not None:
        raise SettingError(
            "Robustness is measured for images of 8 bits in grey or colour that are resized as a whole. This model "
            "reads others. Leave out --robustness."
        )


def sample_of(rows: Sequence[Row], most: int, seed: int = 0) -> list[Row]:
    """Return at most so many rows, drawn at random and in random order: a part of them is a sample too."""
    order = np.random.default_rng(derive(seed, "sample of robustness")).permutation(len(rows))
    return [rows[i] for i in order[:most]]


def grid_of(predictors: Sequence[Predictor]) -> Grid:
    """Return the grid that all networks share, the coarsest of theirs: patches, or squares of a convolutional one."""
    grids = [cell_grid(one.network.spec, torch.empty(1, *one.preprocess.size)) for one in predictors]
    rows, cols = min(grids, key=prod)
    return rows, cols


def batches_of(predictor: Predictor, rows: Sequence[Row], root: Path) -> Iterator[Scored]:
    """Yield the images of rows as network inputs with their truths, in batches."""
    steps, task = predictor.preprocess, predictor.task

    def ready(row: Row) -> Any:
        return predictor.ready(load(root, row.path, steps.channels, row.part).image)

    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            made = list(pool.map(ready, some))
            yield Scored(
                torch.stack([one.pixels for one in made]),
                tuple(some),
                tuple(task.read(row, root) for row in some),
                tuple(one.geometry for one in made),
            )


def measure(
    predictor: Predictor, rows: Sequence[Row], root: Path, how: RobustnessSettings, say: Say = lambda _: None
) -> Measured:
    """Return how a model answers a sample of images under every disturbance, in float32 and without any speed-up.

    Raises:
        SettingError: the task or the images of the model do not fit (`refuse_unfit`).
        DataError: there is no image, or one can no longer be read.
    """
    refuse_unfit(predictor)
    if not rows:
        raise DataError("There is no image to measure robustness on. Name some.")
    grid = how.grid or grid_of([predictor])
    found: dict[Disturbance, list[Flags]] = {}
    lasting: dict[float, NDArray[np.int64]] = {}
    done = 0
    for batch in batches_of(predictor, rows, root):
        answers = answers_of(predictor, batch, grid, how.seed)
        part = batch.some(range(min(len(batch.rows), max(0, how.attacked - done))))
        if part.rows:
            clean = answers[UNCHANGED][: len(part.rows)]
            answers |= _attacked(ModelTarget(predictor, part), clean, how, lasting)
        for one, right in answers.items():
            found.setdefault(one, []).append(right)
        done += len(batch.rows)
        say(f"{done} of {len(rows)} images")
    whole = {one: np.concatenate(parts) for one, parts in found.items()}
    return Measured(tuple(rows), whole, lasting, grid)


def answers_of(predictor: Predictor, batch: Scored, grid: Grid, seed: int) -> dict[Disturbance, Flags]:
    """Return which images of a batch are answered correctly, as they are and under all that needs no gradients."""
    output = _output(predictor, batch, batch.images)
    found = {UNCHANGED: right_of(predictor.task, output, batch)}
    for one, images in _disturbed(predictor, batch, output, grid, seed):
        found[one] = right_of(predictor.task, _output(predictor, batch, images), batch)
    return found


def _output(predictor: Predictor, batch: Scored, images: Tensor) -> Output:
    return predictor.run(Batch({"images": images}, None, batch.ids, batch.places))


def _disturbed(
    predictor: Predictor, batch: Scored, output: Output, grid: Grid, seed: int
) -> Iterator[tuple[Disturbance, Tensor]]:
    """Yield every disturbance that needs no gradients, with the inputs that it makes of a batch."""
    pixels = (unit_pixels(batch.images, predictor.preprocess) * LEVELS).round().clamp(0, LEVELS)
    arrays = pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    for kind in KINDS:
        seeds = [derive(seed, kind, one) for one in batch.ids]
        for severity in SEVERITIES:
            made = [
                torch.from_numpy(corrupt(kind, severity, array, one)).permute(2, 0, 1).float()
                for array, one in zip(arrays, seeds, strict=True)
            ]
            images = torch.stack([predictor.preprocess.normalise(one) for one in made])
            yield Disturbance(CORRUPTED, kind, severity), images
    orders = {
        RANDOM: [random_order(grid, one, seed) for one in batch.ids],
        SALIENT: [salient_order(one) for one in saliency(predictor, batch, output, grid)],
    }
    for kind, order in orders.items():
        for share in SHARES:
            yield Disturbance(DROPPED, kind, share), dropped(batch.images, order, grid, share)
    for pieces in PIECES:
        yield Disturbance(SHUFFLED, "pieces", pieces), shuffled(batch.images, batch.ids, pieces, seed)


def _attacked(
    target: ModelTarget, clean: Flags, how: RobustnessSettings, lasting: dict[float, NDArray[np.int64]]
) -> dict[Disturbance, Flags]:
    """Attack a batch with every epsilon; an image that a smaller change fooled counts as fooled by a larger one."""
    left = torch.from_numpy(clean).to(target.device)
    parts = [epsilon / LEVELS for epsilon in how.epsilons]
    once = fgsm(target, parts) & left
    found = {
        Disturbance(ATTACKED, FGSM, epsilon): right.cpu().numpy()
        for epsilon, right in zip(how.epsilons, once, strict=True)
    }
    for epsilon, part in zip(how.epsilons, parts, strict=True):
        attacked = pgd_with_restarts(target, part, target.batch.ids, left, how.pgd, how.seed)
        left = attacked.right[-1]
        found[Disturbance(ATTACKED, PGD, epsilon)] = left.cpu().numpy()
        counts = attacked.right.sum(1).cpu().numpy()
        lasting[epsilon] = lasting[epsilon] + counts if epsilon in lasting else counts
    return found
