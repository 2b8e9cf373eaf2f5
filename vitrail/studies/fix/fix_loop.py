"""The fix loop of a run: list the doubted labels, take decisions, fit the head again, compare, write a new run."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrail.core.files import make_folder, write_json, write_text
from vitrail.data.decisions import Decision, History
from vitrail.infer.predictor import Predictor
from vitrail.runs.run import Run, open_run
from vitrail.studies.fix.decision_list import asked_for, checked, read_list, write_list
from vitrail.studies.fix.fix_options import FixOptions
from vitrail.studies.fix.frozen_network import FrozenNetwork, open_network
from vitrail.studies.fix.label_doubts import Doubts, find_doubts
from vitrail.studies.fix.list_page import next_commands, page_of_list, result_of_list
from vitrail.studies.fix.new_run import write_run
from vitrail.studies.fix.refit import (
    Comparison,
    note_comparison,
    note_list,
    nothing_to_compare,
    refit,
)
from vitrail.studies.fix.run_images import RunImages, open_images
from vitrail.tasks.result import Result
from vitrail.tasks.result_file import result_to_dict
from vitrail.training.progress import Listener

LOST = (
    "The new head has no label sets and never answers “none of these”: they were set for the head before it. Train "
    "again to have them."
)
"""What a refitted head lacks."""


@dataclass(frozen=True)
class Listed:
    """A list of doubted labels: the doubts, their result, the table and the page, notes and the next commands."""

    doubts: Doubts
    result: Result
    table: Path
    page: Path
    notes: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Fixed:
    """What decisions led to: their lines, the comparison (None, and why), and the new run."""

    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]
    comparison: Comparison | None = None
    run: Run | None = None
    why: str = field(default="")


def list_doubts(
    folder: str,
    data: str = "",
    *,
    test: bool = False,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> Listed:
    """List the images of a run whose label the model doubts, as a table and a page in the run's folder `fix`.

    Raises:
        SettingError: the task cannot tell which of its targets are wrong.
        DataError: the images are gone, or too few.
    """
    images, network = _opened(folder, data, device, listeners)
    doubts = find_doubts(images, network, test=test, listeners=listeners)
    place = images.run.folder / "fix"
    make_folder(place)
    table, page = _unused(place / "fix.csv"), place / "fix.html"
    write_list(table, doubts)
    note_list(images.run, test=test)
    result = result_of_list(doubts)
    notes = (*network.notes, *images.notes, *doubts.notes)
    commands = tuple(next_commands(images, str(table)))
    write_json(place / "result.json", result_to_dict(result))
    write_text(page, page_of_list(images, Predictor(images.run.folder), (result, notes), commands))
    return Listed(doubts, result, table, page, notes, commands)


def decide(
    folder: str,
    asked: FixOptions,
    data: str = "",
    *,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> Fixed:
    """Note decisions beside the data, fit the head again, compare it on the test images, and write a new run.

    Raises:
        DataError: a decision is about an unknown image, one that changed, or a label that cannot be used.
    """
    began = time.monotonic()
    images, network = _opened(folder, data, device, listeners)
    history, decisions = _decided(images, asked)
    images = images.decided(history)
    history.write(images.path)
    notes = (*network.notes, *images.notes)
    if why := nothing_to_compare(images):
        return Fixed(decisions, notes, why=why)
    if network.abstains:
        notes += (LOST,)
    refitted = refit(images, network, listeners)
    note_comparison(images.run, refitted.comparison)
    run = write_run(images, network, refitted, asked.out, time.monotonic() - began)
    return Fixed(decisions, notes, refitted.comparison, run)


def _opened(
    folder: str, data: str, device: str, listeners: Sequence[Listener]
) -> tuple[RunImages, FrozenNetwork]:
    run = open_run(folder)
    network = open_network(run, device)
    return open_images(run, network.recipe.task.name, data, listeners), network


def _decided(images: RunImages, asked: FixOptions) -> tuple[History, tuple[Decision, ...]]:
    history = images.history
    for number in asked.undo:
        history = history.undo(number)
    images = images.decided(history)
    made = asked_for(asked.relabel, asked.drop, asked.keep, images)
    if asked.apply:  # looked at together: each part alone may leave a class some images
        both = (*made, *read_list(Path(asked.apply), images))
        made = checked(((one.what, one.ids[0], one.value) for one in both), images)
    history = history.add(made)
    return history, history.decisions[len(images.history.decisions) - len(asked.undo) :]


def _unused(path: Path) -> Path:
    """Return the path of a new table: one that a user has filled in is never overwritten."""
    for number in range(1, 10_000):
        wanted = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        if not _is_filled(wanted):
            return wanted
    return path


def _is_filled(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as handle:
        rows: list[dict[str, Any]] = list(csv.DictReader(handle))
    return any((row.get("decision") or row.get("new_label") or "").strip() for row in rows)
