"""Would more images help? Heads on frozen features of a part of the images, scored on a test part that stays.

The test part is that of a training with the same seed (a given test split is kept); all other images learn. Each size
is drawn anew three times, evenly from every class, groups whole; sizes are not nested. All of them are drawn once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError, SettingError
from vitrail.core.text import command
from vitrail.data.manifest import TEST, Row
from vitrail.data.prepare import Prepared
from vitrail.metrics.learning_curve import FEWEST, POINTS, Forecast, Points, fit_curve
from vitrail.runs.device import device_for
from vitrail.runs.recipe import Recipe
from vitrail.runs.train_options import TrainOptions
from vitrail.tasks.probe import DenseProbe, PerImageProbe, Vectors, Whole
from vitrail.training.adapted_weights import refuse_guess
from vitrail.training.draft import ProbeData, probe_data
from vitrail.training.feature_cache import Frozen
from vitrail.training.initialization import InitialState, build_from_recipe
from vitrail.training.linear_probe import fit_head
from vitrail.training.loop import Event
from vitrail.training.progress import Listener, note
from vitrail.training.resolve_recipe import plan

SHARES = (0.1, 0.25, 0.5, 1.0)
REDRAWS = 3

FAR = (2, 4)
"""Times as many images that are foretold; the second is told as weaker."""

FAN = 25
"""Sizes at which a drawn curve is asked."""


class Scored(NamedTuple):
    """The scores of heads from so many images, one a redraw."""

    images: int
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over redraws."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Curve:
    """A learning curve: what was scored, and what is foretold (None, and why there is nothing)."""

    name: str
    points: tuple[Scored, ...]
    forecast: Forecast | None
    why: str = ""


@dataclass(frozen=True)
class ModelCurve:
    """The learning curve of a network over all test images, and of each class; what a score is."""

    model: str
    weights: str
    imgsz: tuple[int, int]
    tested: int
    whole: Curve
    classes: tuple[Curve, ...]
    unit: str = "accuracy"


@dataclass(frozen=True)
class Parts:
    """Images by place: which learn and which score, their features, and what a probe makes of their truths."""

    vectors: Vectors
    data: ProbeData
    learn: Whole
    test: Whole


def curve_of(
    source: str, prepared: Prepared, options: TrainOptions, listeners: Sequence[Listener] = ()
) -> ModelCurve:
    """Measure and foretell the learning curve of a network's frozen features.

    Raises:
        DataError: too few images, or one class.
        SettingError: the task has no probe that tells of each image how wrong it is.
    """
    refuse_few(prepared)
    recipe, start = _opened(source, prepared, options, listeners)
    parts = _features(recipe, start, prepared, listeners)
    probe: Any = start.task.probe
    points = redrawn_points(probe, parts, options.seed or 0, listeners)
    single = parts.data.truth.ndim == 1
    names = tuple(start.task.labels) if single else ()
    truth = parts.data.truth
    smallest = float(np.median(np.bincount(truth[parts.learn], minlength=len(names)))) if single else None
    whole = _curve("all images", points, np.ones(len(parts.test), dtype=bool), smallest)
    classes = tuple(
        _curve(name, points, truth[parts.test] == i, float((truth[parts.learn] == i).sum()))
        for i, name in enumerate(names)
    )
    unit = "accuracy" if single else "share of patches" if parts.data.at else "exactly right"
    weights = start.origin
    return ModelCurve(recipe.model.name, weights, recipe.model.imgsz, len(parts.test), whole, classes, unit)


def refuse_few(prepared: Prepared) -> None:
    """Refuse (DataError) what no curve could be drawn of: no test part, one class, hardly an image."""
    rows, truth = len(prepared.manifest.rows()), prepared.manifest.truth
    test, names = len(prepared.manifest.rows(TEST)), truth.names if truth.kind == "class" else ()
    if len(names) == 1:
        raise DataError(
            f"All images are of one class, {names[0]!r}: whoever says so is always right, with any number of images. "
            "Add a class."
        )
    if test < POINTS or rows - test < FEWEST * max(2, len(names)):
        raise DataError(
            f"{rows:,} images, {test:,} of them to test on, are too few for a learning curve: it takes "
            f"{FEWEST} images a class to learn from, and more to say something. Add images."
        )


def _opened(
    source: str, prepared: Prepared, options: TrainOptions, listeners: Sequence[Listener]
) -> tuple[Recipe, InitialState]:
    drafted = replace(options, tune="draft")
    refuse_guess(prepared, drafted)
    planned = plan(source, prepared, drafted)
    note(listeners, list(planned.reasons))
    start = build_from_recipe(planned.recipe, prepared.manifest.truth)
    if not isinstance(getattr(start.task, "probe", None), PerImageProbe):
        raise SettingError(
            f"The task {planned.recipe.task.name} has no linear probe that tells of each image how wrong it is. "
            f"Train on half of the images and on all: {command('curve', source, '--tune', 'full')}"
        )
    return planned.recipe, start


def _features(
    recipe: Recipe, start: InitialState, prepared: Prepared, listeners: Sequence[Listener]
) -> Parts:
    """Return the features of all images, of which those that are known are not computed again."""
    manifest, probe = prepared.manifest, start.task.probe
    rows: list[Row] = manifest.rows()
    dense = isinstance(probe, DenseProbe)
    frozen = Frozen(start.network.encoder, start.preprocess, device_for(recipe.training.device), dense)
    vectors = frozen.vectors(manifest, rows, lambda done, total: _told(listeners, "features", done, total))
    assert probe is not None
    tested = np.array([row.split == TEST for row in rows])
    data = probe_data(start, probe, rows, manifest)
    return Parts(vectors, data, np.flatnonzero(~tested), np.flatnonzero(tested))


def _told(listeners: Sequence[Listener], kind: str, done: int, total: int) -> None:
    for listener in listeners:
        listener(Event(kind, 0, {"done": done, "total": total}))


def redrawn_points(probe: Any, parts: Parts, seed: int, listeners: Sequence[Listener] = ()) -> Points:
    """Return how wrong heads from a part of the learning images are on the test images, size by size."""
    truth, groups = parts.data.truth, parts.data.groups
    draw = np.random.default_rng(abs(seed))
    strata = probe.strata(truth[parts.learn])
    sizes: list[float] = []
    wrong = []
    for share in SHARES:
        drawn, answers = [], []
        for _ in range(REDRAWS if share < 1 else 1):
            places = parts.learn[stratified(strata, groups[parts.learn], share, draw)]
            head = fit_head(probe, parts.vectors[places], truth[places], groups[places])
            answers.append(probe.wrong(head.logits(parts.vectors[parts.test]), truth[parts.test]))
            drawn.append(len(places))
        if not sizes or np.mean(drawn) > sizes[-1]:
            sizes.append(float(round(np.mean(drawn))))
            wrong.append(np.stack(answers).astype(np.float64))
        note(listeners, [f"heads from {np.mean(drawn):,.0f} images are scored"])
    return Points(np.array(sizes), tuple(wrong), groups[parts.test])


def stratified(strata: Whole, groups: Whole, share: float, draw: np.random.Generator) -> Whole:
    """Return the places of a share of the images, evenly from each stratum, groups whole: (m,), ascending.

    Groups of a stratum are put in a random order and spread over 0 … 1; those below the share are taken, the first
    of each stratum always.
    """
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first))
    for one in np.unique(strata[first]):
        units = draw.permutation(np.flatnonzero(strata[first] == one))
        rank[units] = (np.arange(len(units)) + draw.random()) / len(units)
        rank[units[0]] = 0.0
    places: Whole = np.flatnonzero(rank[member] < share)
    return places


def _curve(name: str, points: Points, images: NDArray[np.bool_], per_class: float | None) -> Curve:
    """Return the curve of some of the test images; nothing is fitted below five images a class.

    `per_class` says how many of all training images are of this class, or of a usual one; None where there are none.
    """
    if not images.any():
        return Curve(name, (), None, "no test image")
    enough = np.ones(len(points.sizes), dtype=bool)
    if per_class is not None:
        enough = per_class * points.sizes / points.sizes[-1] >= FEWEST
    every = points.part(np.ones_like(enough), images)
    shown = tuple(
        Scored(int(size), tuple((1 - one.mean(1)).tolist()))
        for size, one in zip(every.sizes, every.wrong, strict=True)
    )
    if enough.sum() < POINTS:
        return Curve(name, shown, None, f"fewer than {POINTS} sizes with {FEWEST} images a class")
    if len(np.unique(every.groups)) < FEWEST:
        return Curve(name, shown, None, f"fewer than {FEWEST} test images")
    largest = points.sizes[-1]
    at = np.unique(np.concatenate([np.geomspace(points.sizes[0], 4 * largest, FAN), largest * np.array(FAR)]))
    forecast = fit_curve(points.part(enough, images), at.tolist())
    return Curve(name, shown, forecast, "" if forecast else "too few test images")
