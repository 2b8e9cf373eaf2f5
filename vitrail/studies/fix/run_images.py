"""The images of a run as they are now: their labels after all decisions, in the splits of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, RunError
from vitrail.core.text import command
from vitrail.data.decisions import History, history_path
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import KEPT, TEST, TRAIN, Manifest, Row
from vitrail.data.prepare import Examined, examine_source, find
from vitrail.data.rasters.sources import found_again
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import Run
from vitrail.training.loop import Event
from vitrail.training.progress import Listener


@dataclass(frozen=True)
class RunImages:
    """The images of a run that are unchanged, and the decisions about them.

    `before` has their labels and states as the run saw them, `now` as the data and the decisions say. The splits are
    those of the run in both. `notes` say what was left out. `path` is the file of the decisions.
    """

    run: Run
    before: Manifest
    now: Manifest
    examined: Examined
    history: History
    path: Path
    notes: tuple[str, ...]

    def decided(self, history: History) -> RunImages:
        """Return the same images after other decisions."""
        return _joined(self.run, self.before, self.examined, (history, self.path))

    def rows(self, manifest: Manifest, *, test: bool) -> list[Row]:
        """Return the kept rows of the test split, or of the others."""
        return [row for row in manifest.rows() if (row.split == TEST) == test]


def open_images(run: Run, task: str, data: str = "", listeners: Sequence[Listener] = ()) -> RunImages:
    """Read the images of a run again, with the decisions about them; `data` is where they are now ("": unchanged).

    Raises:
        DataError: they are not there, or all of them changed.
    """
    recipe = run.recipe()
    source = data or _source(run, recipe)

    def progress(done: int, total: int) -> None:
        for listener in listeners:
            listener(Event("looked", 0, {"done": done, "total": total}))

    stated = recipe.data
    examined = examine_source(source, stated.reading(), progress=progress, task=task)
    path = history_path(find(source))
    before = run.manifest(examined.layout.root)
    return _joined(run, before, examined, (History.read(path), path))


def _source(run: Run, recipe: Recipe) -> str:
    """Return where the images of a run are: as the recipe names them, or where its manifest found them.

    Raises:
        DataError: they are in neither place.
    """
    stated = recipe.data.source
    try:
        root = run.root()
    except RunError:
        root = Path()
    if rasters := found_again(stated, root):
        return rasters
    for place in (find(stated) if stated else root, root / Path(stated).name, root):
        if stated and place.exists() and place.name == Path(stated).name:
            return str(place)
    if stated and expanded(stated).exists():
        return stated
    raise DataError(
        f"The images of {run.folder} were in {stated or root}, which is not here. Put them back, or say where they "
        f"are now: {command('fix', run.folder, '--data', 'PLACE')}"
    )


def _joined(run: Run, known: Manifest, examined: Examined, decided: tuple[History, Path]) -> RunImages:
    history, path = decided
    rows, notes = history.apply(examined.report.rows, examined.report.again)
    present = {row.id: row for row in rows}
    every = known.rows(state=None)
    missing = [row.id for row in every if row.id not in present]
    changed = [
        row.id
        for row in every
        if row.id in present and row.hash and present[row.id].hash not in ("", row.hash)
    ]
    left = [row for row in every if row.id not in {*missing, *changed}]
    if not any(row.state == KEPT for row in left):
        raise DataError(
            f"None of the {len(known.rows()):,} images of {run.folder} is in {examined.source} as the run saw it. Say "
            f"where they are: {command('fix', run.folder, '--data', 'PLACE')}"
        )
    splits = {row.group: row.split for row in left if row.group and row.split}
    now = [_now(row, present[row.id], splits) for row in left]
    parts = [
        *([f"{count(len(missing), 'image')} of the run no longer there: {shorten(missing)}."] if missing else []),
        *([f"{count(len(changed), 'image')} changed since the run, left out: {shorten(changed)}."] if changed else []),
    ]  # fmt: skip
    return RunImages(run, known.replace(left), known.replace(now), examined, history, path, (*parts, *notes))


def _now(row: Row, present: Row, splits: dict[str, str]) -> Row:
    """Return a row of the run with its present label and state.

    An image that was out of the run and is kept now learns, or stands where the others of its group stand.
    """
    split = row.split or (splits.get(row.group, TRAIN) if present.state == KEPT else "")
    return row._replace(target=present.target, state=present.state, reason=present.reason, split=split)


def changes(images: RunImages) -> dict[str, list[Row]]:
    """Return what differs between the run and now, as rows by kind: relabelled, left out, taken back in."""
    found: dict[str, list[Row]] = {"relabelled": [], "left out": [], "taken in": []}
    now: dict[str, Any] = {row.id: row for row in images.now.rows(state=None)}
    for row in images.before.rows(state=None):
        after = now[row.id]
        if row.state == KEPT and after.state != KEPT:
            found["left out"].append(after)
        elif row.state != KEPT and after.state == KEPT:
            found["taken in"].append(after)
        elif after.state == KEPT and after.target != row.target:
            found["relabelled"].append(after)
    return found
