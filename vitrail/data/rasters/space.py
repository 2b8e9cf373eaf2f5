"""Leaks in space: what a split of pixels at random would pretend, measured with a small random forest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.findings import Finding
from vitrail.data.labels import split_labels
from vitrail.data.manifest import KEPT, TEST, TRAIN, Manifest, Row
from vitrail.data.parts import raster_window
from vitrail.data.rasters.blocks import left_out
from vitrail.data.rasters.facts import RasterFacts
from vitrail.data.rasters.read_windows import read_windows
from vitrail.data.split import assign

MOST = 5_000
"""Largest number of windows of a forest's training, and of its test."""

_TREES = 60
_BLOCKS = 6  # with fewer blocks, a score on those of the test means nothing
_LEAST = 20  # windows


def in_space(facts: RasterFacts, rows: Sequence[Row], root: Path) -> Finding | None:
    """Return the scores of a random forest on unseen blocks and on pixels drawn at random from the same rows.

    Its features are the bands of the middle of a window, and their mean and deviation. None if there are too few
    blocks, windows or classes.
    """
    kept = [row for row in rows if row.state == KEPT]
    if len({row.group for row in kept}) < _BLOCKS or len({row.target for row in kept}) < 2:
        return None
    try:
        placed = assign(Manifest.of(kept, root), _strata, seed=0).manifest.rows()
    except DataError:  # only some splits are given
        return None
    apart = [row for row in left_out(placed, facts.window, _strata).rows if row.state == KEPT]
    train, test = (_some([row for row in apart if row.split == one]) for one in (TRAIN, TEST))
    if min(len(train), len(test)) < _LEAST:
        return None
    features = _features(facts, [*train, *test], root)
    classes = np.array([row.target for row in (*train, *test)])
    if features is None or len(set(classes[: len(train)].tolist())) < 2:
        return None
    blocks = _score(features, classes, np.arange(len(classes)) < len(train))
    drawn = np.random.default_rng(0).permutation(len(classes)) < len(train)
    at_random = _score(features, classes, drawn)
    given = any(row.split for row in kept)
    table = tuple(
        {"split": name, "share": round(score, 4), "trained": len(train), "scored": len(test)}
        for name, score in (("blocks", blocks), ("at random", at_random))
    )
    seen, split = ("blocks it never saw", "split by blocks")
    if given:
        seen, split = ("the labels that are given for the test", "given split")
    text = (
        f"A random forest scores {blocks:.0%} on {seen}, {at_random:.0%} had the pixels been split at random: the "
        f"{split} is taken, for it says what a map is worth."
    )
    return Finding("space", text, table=table)


def _strata(row: Row) -> tuple[str, ...]:
    return split_labels(row.target)


def _some(rows: Sequence[Row]) -> list[Row]:
    """Return at most `MOST` rows at even distances."""
    step = len(rows) / min(len(rows), MOST) if rows else 1.0
    return [rows[int(i * step)] for i in range(min(len(rows), MOST))]


def _features(facts: RasterFacts, rows: Sequence[Row], root: Path) -> NDArray[np.float32] | None:
    """Return (rows, 3 · bands), or None if a window cannot be read."""
    windows = [raster_window(row.part, row.path) for row in rows]
    found = np.zeros((len(rows), 3 * len(facts.bands)), np.float32)
    for seen in read_windows(root, facts.path, windows):
        if seen.values is None:
            return None
        there = ~np.isnan(seen.values)
        values, number = np.where(there, seen.values, 0), np.maximum(there.sum((0, 1)), 1)
        mean = values.sum((0, 1)) / number
        spread = np.sqrt((there * (values - mean) ** 2).sum((0, 1)) / number)
        middle = values[values.shape[0] // 2, values.shape[1] // 2]
        found[seen.at] = np.concatenate([middle, mean, spread])
    return found


def _score(features: NDArray[np.float32], classes: NDArray[np.str_], train: NDArray[np.bool_]) -> float:
    """Return the share of the other rows that a forest of the training rows predicts correctly."""
    from sklearn.ensemble import RandomForestClassifier  # the import takes half a second

    forest = RandomForestClassifier(_TREES, random_state=0).fit(features[train], classes[train])
    return float((forest.predict(features[~train]) == classes[~train]).mean())
