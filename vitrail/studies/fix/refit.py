"""Fit the head again after decisions about labels, and compare it with the head before on the same test images."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.core.files import append_line, make_folder
from vitrail.core.text import command
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import TEST, Row, group_key
from vitrail.metrics.intervals import Interval, of_groups, wilson
from vitrail.metrics.paired_difference import Difference, over_seeds
from vitrail.runs.run import Run
from vitrail.studies.fix.frozen_network import FrozenNetwork
from vitrail.studies.fix.run_images import RunImages, changes
from vitrail.tasks.probe import Linear, Vectors
from vitrail.training.linear_probe import fit_head, held_out
from vitrail.training.progress import Listener


@dataclass(frozen=True)
class Comparison:
    """The share right before and after on `tested` test images that no decision is about, and their paired difference.

    `touched` are the test images that a decision is about, `earlier` is how often these test images told before, and
    `listed` whether a list of doubts held them. `changed` counts the training images by what was decided, and
    `precision` is the share of decided labels that were wrong.
    """

    before: Interval
    after: Interval
    difference: Difference
    tested: int
    touched: tuple[str, ...]
    earlier: int
    listed: bool
    changed: dict[str, int]
    precision: Interval | None
    decided: int

    def lines(self) -> list[str]:
        """Return what was found as sentences, the answer first, then every reason to trust it less."""
        low, high = self.difference.interval()
        gain = f"{100 * self.difference.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
        answer = (
            "Better" if low > 0 else "Worse" if high < 0 else "No difference that these test images can show"
        )
        what = ", ".join(f"{number:,} {name}" for name, number in self.changed.items() if number)
        lines = [
            f"{answer}: {gain} on {count(self.tested, 'test image')}, paired, 95 % interval.",
            f"Before {self.before}; after {self.after} (a head on frozen features; training images: "
            f"{what or 'nothing changed'}).",
        ]
        if self.precision is not None:
            lines.append(
                f"Of {count(self.decided, 'label')} decided, {self.precision} were wrong (relabelled or left out)."
            )
        return lines + self.guard()

    def guard(self) -> list[str]:
        """Return in which ways the test set was used to decide; nothing if it was not."""
        lines = []
        if self.touched:
            lines.append(
                f"The test set was used to decide: {count(len(self.touched), 'test image')} relabelled or left out "
                f"({shorten(self.touched)}). They are not scored here; the others are, as they were."
            )
        if self.listed:
            lines.append(
                "The test set was used to decide: its images stood in a list of doubts (--with-test). Who saw the "
                "mistakes on it decides by them."
            )
        if self.earlier:
            lines.append(
                f"These test images told {self.earlier + 1} times now. Whoever keeps the decisions that score best on "
                "them gets a number that flatters; only new images tell then: vitrail eval RUN FOLDER."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        low, high = self.difference.interval()
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "difference": {"value": round(self.difference.value, 6), "low": round(low, 6), "high": round(high, 6)},
            "p": round(self.difference.p, 6),
            "tested": self.tested,
            "touched": list(self.touched),
            "earlier": self.earlier,
            "test_listed": self.listed,
            "changed": self.changed,
            "wrong_of_decided": None if self.precision is None else self.precision.to_dict(),
            "decided": self.decided,
        }  # fmt: skip


class Refitted(NamedTuple):
    """The comparison, the new head, and rows with logits: of the images it learned from, by folds, and of the test.

    The labels are those of now.
    """

    comparison: Comparison
    head: Linear
    learned: tuple[list[Row], Vectors]
    tests: tuple[list[Row], Vectors]


def refit(images: RunImages, network: FrozenNetwork, listeners: Sequence[Listener] = ()) -> Refitted:
    """Fit a head on all images but the test, as they were labelled, and one as they are now; compare both.

    Validation images learn, too: nothing is chosen by them here, and their wrong labels count like all others.

    Raises:
        DataError: the run has no test image that no decision is about, or no training images.
    """
    before, after = (images.rows(one, test=False) for one in (images.before, images.now))
    touched = touched_tests(images)
    tests = [row for row in images.before.rows(TEST) if row.id not in touched]
    if not tests or not before or not after:
        raise DataError(
            f"{images.run.folder} has {len(tests):,} test images that no decision is about, and {len(after):,} "
            "training images: nothing can be compared. Undo decisions about test images (--undo), or add images."
        )
    present = images.now.rows(TEST) or tests
    every = list({row.id: row for row in (*before, *after, *tests, *present)}.values())
    vectors = dict(zip((row.id for row in every), network.vectors(images.now, every, listeners), strict=True))
    heads = [_head(network, images, rows, vectors) for rows in (before, after)]
    wrong = [_wrong(network, images, head, tests, vectors) for head in heads]
    comparison = _comparison(images, tests, wrong, touched)
    data = network.data(images.now, after)
    folds = held_out(network.probe, _of(after, vectors), data.truth, data.groups)
    scored = heads[1].logits(_of(present, vectors))
    return Refitted(comparison, heads[1], (after, folds.logits), (present, scored))


def touched_tests(images: RunImages) -> dict[str, Row]:
    """Return the test images that a decision or a change of the data is about, by id."""
    now = {row.id: row for row in images.now.rows(state=None)}
    decided = {id for id, one in images.history.latest().items() if one.what != "keep"}
    return {
        row.id: row
        for row in images.before.rows(TEST)
        if row.id in decided or now[row.id].target != row.target or now[row.id].state != row.state
    }


def note_list(run: Run, *, test: bool) -> None:
    """Note that a list of doubts was made, and whether test images stood in it."""
    _append(run, {"event": "listed", "time": time.time(), "test": test})


def note_comparison(run: Run, comparison: Comparison) -> None:
    """Note that the test images of a run told a comparison."""
    _append(run, {"event": "compared", "time": time.time(), **comparison.to_dict()})


def _append(run: Run, event: dict[str, Any]) -> None:
    make_folder(_rounds(run).parent)
    append_line(_rounds(run), event)


def _rounds(run: Run) -> Path:
    return run.folder / "fix" / "rounds.jsonl"


def _events(run: Run) -> list[dict[str, Any]]:
    path = _rounds(run)
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _head(
    network: FrozenNetwork, images: RunImages, rows: list[Row], vectors: dict[str, NDArray[Any]]
) -> Linear:
    data = network.data(images.now, rows)
    return fit_head(network.probe, _of(rows, vectors), data.truth, data.groups)


def _wrong(
    network: FrozenNetwork,
    images: RunImages,
    head: Linear,
    rows: list[Row],
    vectors: dict[str, NDArray[Any]],
) -> NDArray[np.float64]:
    truth = network.data(images.now, rows).truth
    wrong: NDArray[np.float64] = network.probe.wrong(head.logits(_of(rows, vectors)), truth)
    return wrong


def _of(rows: Sequence[Row], vectors: dict[str, NDArray[Any]]) -> Vectors:
    return np.stack([vectors[row.id] for row in rows])


def _comparison(
    images: RunImages, tests: list[Row], wrong: Sequence[NDArray[np.float64]], touched: dict[str, Row]
) -> Comparison:
    groups = [group_key(row) for row in tests]
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    units = np.array([names[group] for group in groups])
    difference = over_seeds((wrong[0] - wrong[1])[None], units)
    before, after = (of_groups((1 - one).tolist(), groups) for one in wrong)
    events = _events(images.run)
    known = {row.id for row in images.before.rows(state=None)}
    decided = [one for id, one in images.history.latest().items() if id in known]
    mistaken = sum(one.what != "keep" for one in decided)
    changed = {name: sum(row.split != TEST for row in rows) for name, rows in changes(images).items()}
    return Comparison(
        before,
        after,
        difference,
        len(tests),
        tuple(touched),
        sum(event["event"] == "compared" for event in events),
        any(event["event"] == "listed" and event["test"] for event in events),
        changed,
        wilson(mistaken, len(decided)) if decided else None,
        len(decided),
    )


def nothing_to_compare(images: RunImages) -> str:
    """Return a sentence if the labels now are those of the run, else ""."""
    if any(changes(images).values()):
        return ""
    again = command("fix", images.run.folder)
    return f"No label of the run is changed by the decisions there are. See the doubted ones: {again}"
