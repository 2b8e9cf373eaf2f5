"""Images whose label the model doubts, worst first: twins with different labels, then by margin.

Every label is compared with the prediction of a head that was not fitted on the image. Test images play no part in it
unless they are asked for: they are kept for the comparison before and after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from vitrail.data.findings import CONTRADICTS
from vitrail.data.labels import count, natural, shorten
from vitrail.data.manifest import QUARANTINED, Row
from vitrail.evaluate.cross_validation import Answered, Folded, score_by_folds
from vitrail.studies.fix.frozen_network import FrozenNetwork, evaluated
from vitrail.studies.fix.run_images import RunImages
from vitrail.tasks.probe import LabelScore, Vectors
from vitrail.training.linear_probe import fit_head, held_out
from vitrail.training.progress import Listener

SHARE = 0.05
"""The share of the images that a list holds at least: those that fit worst stand below the doubted ones."""

Why = Literal["twins", "doubted", "uncertain"]


class Entry(NamedTuple):
    """An image in the list, why it is there, and the other copies of it that have other labels."""

    score: LabelScore
    why: Why
    copies: tuple[str, ...] = ()

    @property
    def row(self) -> Row:
        """The row of the image."""
        return self.score.row


@dataclass(frozen=True)
class Doubts:
    """The list, the number of images whose labels were compared, and what to know about it."""

    entries: tuple[Entry, ...]
    images: int
    notes: tuple[str, ...]

    def of(self, why: Why) -> list[Entry]:
        """Return the entries of one kind."""
        return [one for one in self.entries if one.why == why]


def find_doubts(
    images: RunImages, network: FrozenNetwork, *, test: bool = False, listeners: Sequence[Listener] = ()
) -> Doubts:
    """Return the images whose label the model doubts; `test` looks at the test images, too.

    Raises:
        DataError: there are too few images.
    """
    rows = images.rows(images.now, test=False)
    twins = twin_groups(images)
    rest = images.rows(images.now, test=True) if test else []
    rest += [row for group in twins for row in group if row.state == QUARANTINED]
    vectors = network.vectors(images.now, [*rows, *rest], listeners)
    folded = _by_folds(network, images, rows, vectors[: len(rows)])
    if rest:
        logits = _by_all_others(network, images, (rows, rest), vectors)
        folded.evaluation.merge(evaluated(folded.task, images.now, rest, logits))
    scores: list[LabelScore] = network.probe.label_scores(folded.evaluation)
    decided = images.history.latest()
    entries = _listed(scores, twins, set(decided))
    hidden = sum(one.row.id in decided for one in scores)
    alone = sorted({one.label for one in scores if one.note}, key=natural)
    notes = [
        *([f"{count(hidden, 'image')} decided about already, not listed again."] if hidden else []),
        *([f"Classes with a single image cannot be looked at: {shorten(alone)}."] if alone else []),
        "The test images were looked at, too: a decision about one of them changes the test."
        if test
        else "Test images were not looked at: they stay for the comparison (--with-test lists them, too).",
    ]
    return Doubts(tuple(entries), len(scores), tuple(notes))


def twin_groups(images: RunImages) -> list[list[Row]]:
    """Return groups of copies of one image, or almost the same one, that have different labels.

    Equal images are out of every run until one of their labels is decided to be right; similar ones are in it.
    """
    groups: dict[str, list[Row]] = {}
    for row in images.now.rows(state=None):
        contradicts = row.state == QUARANTINED and row.reason.startswith(CONTRADICTS)
        if row.group and (contradicts or (row.state == "kept" and row.group.startswith("twins:"))):
            groups.setdefault(row.group, []).append(row)
    return [group for group in groups.values() if len({row.target for row in group}) > 1]


def _by_folds(network: FrozenNetwork, images: RunImages, rows: list[Row], vectors: Vectors) -> Folded:
    """Return the predictions of rows by heads that were not fitted on them."""
    data = network.data(images.now, rows)
    found = held_out(network.probe, vectors, data.truth, data.groups)
    answered = Answered(rows, data.targets, found.logits, found.folds, data.truth)
    return score_by_folds(network.start.task, network.recipe.task.name, answered)


def _by_all_others(
    network: FrozenNetwork, images: RunImages, parts: tuple[list[Row], list[Row]], vectors: Vectors
) -> Vectors:
    """Return the logits of rows that are in no fold, by a head fitted on all others that are no copies of them."""
    rows, rest = parts
    groups = {row.group for row in rest} - {""}
    fitted = [i for i, row in enumerate(rows) if row.group not in groups]
    data = network.data(images.now, [rows[i] for i in fitted])
    return fit_head(network.probe, vectors[fitted], data.truth, data.groups).logits(vectors[len(rows) :])


def _listed(scores: list[LabelScore], twins: list[list[Row]], decided: set[str]) -> list[Entry]:
    """Return the list: twins group by group, then the doubted, then those that fit worst, each by margin."""
    by_id = {one.row.id: one for one in scores if one.row.id not in decided}
    entries: list[Entry] = []
    for group in sorted(twins, key=lambda rows: min(_margin(by_id, row.id) for row in rows)):
        ids = [row.id for row in group]
        if decided.intersection(ids):
            continue  # which label is right has been decided
        entries += [
            Entry(by_id[id], "twins", tuple(one for one in ids if one != id)) for id in ids if id in by_id
        ]
    listed = {one.row.id for one in entries}
    rest = sorted(
        (one for id, one in by_id.items() if id not in listed), key=lambda one: (one.margin, one.row.id)
    )
    entries += [Entry(one, "doubted") for one in rest if one.doubted]
    least = math.ceil(SHARE * len(scores))
    uncertain = [one for one in rest if not one.doubted and not one.note and one.margin < 0]
    return entries + [Entry(one, "uncertain") for one in uncertain[: max(0, least - len(entries))]]


def _margin(by_id: dict[str, LabelScore], id: str) -> float:
    return by_id[id].margin if id in by_id else np.inf
