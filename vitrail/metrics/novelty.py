"""Which distances tell unknown images from known ones, measured on classes that are left out and on other images.

No single distance does both: the relative distance of the last features finds classes that were left out, and can rate
noise as more usual than any image; the plain distance halfway through the network finds other kinds of images
(docs/benchmarks.md). A score may therefore be the larger one of two, each in units of its spread over known images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.metrics.conformal import least_images, limit
from vitrail.metrics.intervals import Interval, resampled, wilson
from vitrail.metrics.mahalanobis import Distances, Gaussians, distances, fit_gaussians
from vitrail.metrics.ranking import ranking

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]
Vectors = Mapping[str, Array]
"""Vectors (n, d) of the same images at several places of a network, by the name of the place."""

LEFT_OUT = 8
"""Largest number of classes that are left out in turn."""

FEWEST_CLASSES = 3
"""With fewer classes, none can be left out: with one class left there is nothing to compare."""

WIDEST = 1024
"""Widest vectors for which relative distances are tried: they need a second matrix (d, d) in the model file."""


class Part(NamedTuple):
    """One distance: the place of its vectors in the network, and whether it is relative to that of all images."""

    place: str
    relative: bool


LAST, MIDDLE = "last", "middle"

CANDIDATES: tuple[tuple[Part, ...], ...] = (
    (Part(LAST, True), Part(MIDDLE, False)),
    (Part(LAST, True),),
    (Part(LAST, False),),
    (Part(MIDDLE, False),),
    (Part(LAST, True), Part(LAST, False)),
)
"""The scores that are tried; of equally good ones, the first is taken."""


class Known(NamedTuple):
    """Independent images of known classes: their vectors, and their classes (n,)."""

    vectors: Vectors
    truth: Whole


class Scale(NamedTuple):
    """The usual value and the spread of a distance over known images."""

    usual: float
    spread: float


class Detector(NamedTuple):
    """A fitted score: its parts with their scales, and the Gaussians of each place."""

    parts: tuple[Part, ...]
    scales: tuple[Scale, ...]
    gaussians: Mapping[str, Gaussians]

    def scores(self, found: Mapping[str, Distances]) -> Array:
        """Return the score of images from their distances at each place: (n,)."""
        scaled = [
            (found[part.place].of(part.relative) - scale.usual) / scale.spread
            for part, scale in zip(self.parts, self.scales, strict=True)
        ]
        largest: Array = np.max(scaled, axis=0)
        return largest


class Noticed(NamedTuple):
    """How well unknown images are told from known ones: AUROC, and the share noticed at the allowed error."""

    auroc: Interval
    share: Interval
    known: int
    unknown: int


class Selection(NamedTuple):
    """The best detector, its scores on the known images, and how well it notices left-out classes and other images."""

    detector: Detector
    scores: Array
    near: Noticed | None
    far: Mapping[str, Noticed]


class Pair(NamedTuple):
    """Scores of images, and which of them are unknown; (n,) each."""

    scores: Array
    unknown: Flags

    @property
    def auroc(self) -> float:
        """How often an unknown image has a higher score than a known one; a tie counts as a half."""
        return float(ranking(self.scores, self.unknown).auroc[0])


def select(train: Known, held: Known, far: Mapping[str, Vectors], error: float) -> Selection:
    """Fit Gaussians on `train`, and choose the detector by how well it tells other images from those of `held`.

    The choice is by the mean of two AUROCs: over classes that are left out of the fit, and of the kind of images in
    `far` that is noticed worst. `error` is the share of known images that may be taken for unknown.
    """
    gaussians = fit_places(train)
    own = distances_at(gaussians, held.vectors)
    others = {kind: distances_at(gaussians, vectors) for kind, vectors in far.items()}
    rounds = list(leave_one_out(train, held, error))

    def tried(parts: tuple[Part, ...]) -> _Tried:
        detector = Detector(parts, scales_of(parts, own), gaussians)
        scores = detector.scores(own)
        pairs = {kind: against(scores, detector.scores(one)) for kind, one in others.items()}
        return _Tried(detector, scores, [one.scored(parts) for one in rounds], pairs)

    best = max(map(tried, _possible(gaussians)), key=_Tried.worth)
    near = noticed(best.left_out, error) if best.left_out else None
    found = {kind: noticed([pair], error) for kind, pair in best.far.items()}
    return Selection(best.detector, best.scores, near, found)


class _Tried(NamedTuple):
    """A detector, its scores on the known images, and its scores on left-out classes and on other images."""

    detector: Detector
    scores: Array
    left_out: Sequence[Pair]
    far: Mapping[str, Pair]

    def worth(self) -> float:
        """Return the mean of the AUROC over left-out classes and of the worst AUROC of other images, six digits."""
        parts = [float(np.mean([pair.auroc for pair in self.left_out]))] if self.left_out else []
        parts += [min(pair.auroc for pair in self.far.values())] if self.far else []
        return round(float(np.mean(parts)), 6) if parts else 0.0


def noticed(pairs: Sequence[Pair], error: float) -> Noticed:
    """Return how well unknown images are told from known ones: the mean AUROC of pairs, and the share of all noticed.

    The interval of the AUROC is the percentile bootstrap over images, drawn alike for all pairs of the same images.
    """
    draws = resampled([str(i) for i in range(len(pairs[0].scores))])
    areas = np.stack([ranking(pair.scores, pair.unknown, draws).auroc for pair in pairs])
    # A draw without any image of a class says nothing of this class.
    samples = np.nanmean(areas[:, np.isfinite(areas).any(0)], axis=0)
    low, high = np.quantile(samples, [0.025, 0.975])
    value = float(np.mean([pair.auroc for pair in pairs]))
    above = [
        pair.scores[pair.unknown] > limit(np.sort(pair.scores[~pair.unknown]).tolist(), error)
        for pair in pairs
    ]
    flags = np.concatenate(above)
    area = Interval(value, min(float(low), value), max(float(high), value))
    known = int(np.mean([(~pair.unknown).sum() for pair in pairs]))
    return Noticed(area, wilson(int(flags.sum()), len(flags)), known, len(flags))


class _Round(NamedTuple):
    """Distances of the held-out images after one class was left out of the fit, and which images have this class."""

    found: Mapping[str, Distances]
    unknown: Flags

    def scored(self, parts: tuple[Part, ...]) -> Pair:
        """Return the scores of all images by these parts."""
        known = {place: _some(one, ~self.unknown) for place, one in self.found.items()}
        return Pair(Detector(parts, scales_of(parts, known), {}).scores(self.found), self.unknown)


def leave_one_out(train: Known, held: Known, error: float) -> Iterator[_Round]:
    """Leave out some classes in turn, evenly chosen from those with images on both sides."""
    classes = np.intersect1d(train.truth, held.truth)
    if len(classes) < FEWEST_CLASSES:
        return
    chosen = classes[np.unique(np.linspace(0, len(classes) - 1, LEFT_OUT).round().astype(int))]
    for one in chosen:
        rest, unknown = train.truth != one, held.truth == one
        if int((~unknown).sum()) < least_images(error):
            continue
        part = Known({place: x[rest] for place, x in train.vectors.items()}, train.truth[rest])
        yield _Round(distances_at(fit_places(part), held.vectors), unknown)


def fit_places(train: Known) -> dict[str, Gaussians]:
    """Fit Gaussians at each place."""
    return {place: fit_gaussians(x, train.truth) for place, x in train.vectors.items()}


def distances_at(gaussians: Mapping[str, Gaussians], vectors: Vectors) -> dict[str, Distances]:
    """Return the distances of images at each place."""
    return {place: distances(one, vectors[place]) for place, one in gaussians.items()}


def _possible(gaussians: Mapping[str, Gaussians]) -> list[tuple[Part, ...]]:
    def fits(part: Part) -> bool:
        there = part.place in gaussians
        return there and not (part.relative and len(gaussians[part.place].centre) > WIDEST)

    return [parts for parts in CANDIDATES if all(map(fits, parts))]


def scales_of(parts: Sequence[Part], found: Mapping[str, Distances]) -> tuple[Scale, ...]:
    """Return the scale of each distance on known images."""
    values = [found[part.place].of(part.relative) for part in parts]
    return tuple(Scale(float(np.median(one)), max(float(one.std()), 1e-9)) for one in values)


def _some(found: Distances, chosen: Flags) -> Distances:
    return Distances(found.nearest[chosen], found.whole[chosen])


def against(known: Array, unknown: Array) -> Pair:
    """Return scores of known and of unknown images as one."""
    scores = np.concatenate([known, unknown])
    return Pair(scores, np.arange(len(scores)) >= len(known))
