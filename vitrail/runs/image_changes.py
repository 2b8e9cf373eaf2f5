"""Find the images of a run again: their present folder, and whether they changed since the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError
from vitrail.data.changed_images import Changes, find_changes
from vitrail.data.doctor import Progress
from vitrail.data.manifest import DROPPED, Manifest, Row
from vitrail.data.open_image import files_of
from vitrail.data.prepare import find
from vitrail.runs.run import Run

_LOOKED_FOR = 20  # images that are used to find the folder


def look_event(root: Path, began: float) -> dict[str, Any]:
    """Return the history values for a check of all images of a run: their folder, and the start time."""
    return {"root": str(root.resolve()), "looked": began}


def last_look(run: Run, root: Path) -> float | None:
    """Return the time of the last check of a run's images in this folder, or None."""
    here = str(root.resolve())
    return next(
        (e["looked"] for e in reversed(run.history()) if "looked" in e and e.get("root") == here), None
    )


def changes_of(
    run: Run, manifest: Manifest, rows: Sequence[Row] | None = None, progress: Progress | None = None
) -> Changes:
    """Return which images of a run (`rows`; None: all kept ones) changed or are missing."""
    rows = manifest.rows() if rows is None else rows
    return find_changes(rows, manifest.root, last_look(run, manifest.root), progress)


def without_changes(run: Run, manifest: Manifest, splits: Sequence[str]) -> tuple[Manifest, str]:
    """Return the manifest without the images of these splits that changed or are missing.

    The second value names them in words; it is "" if there are none.
    """
    rows = [row for split in splits for row in manifest.rows(split)]
    changes = changes_of(run, manifest, rows)
    if not (changed := changes.ids()):
        return manifest, ""
    reason = "no longer the image that the run saw"
    kept = [
        row._replace(state=DROPPED, reason=reason) if row.id in changed else row
        for row in manifest.rows(state=None)
    ]
    return manifest.replace(kept), changes.text(len(rows))


def moved(manifest: Manifest, source: str) -> Manifest:
    """Return the manifest of a run whose images were moved; `source` is a folder, archive or table.

    Raises:
        DataError: none of the images is there.
    """
    whole = find(source)
    rows = manifest.rows()
    rows = rows[:: max(1, len(rows) // _LOOKED_FOR)][:_LOOKED_FOR]
    tail = manifest.root.parts[1:]
    deeper = [whole.joinpath(*tail[-depth:]) for depth in range(1, min(3, len(tail)) + 1)]
    folders = [whole, *deeper, whole.parent] if whole.is_dir() else [whole.parent]
    root = max(folders, key=lambda folder: sum(_lies_in(folder, row) for row in rows))
    if not any(_lies_in(root, row) for row in rows):
        raise DataError(
            f"No image of the run is in {source}: there is no {root / rows[0].path}. Name the folder that "
            f"holds {rows[0].path}."
        )
    return replace(manifest, root=root.resolve())


def _lies_in(folder: Path, row: Row) -> bool:
    try:
        return all(file.is_file() for file in files_of(folder, row.path, row.part))
    except DataError:
        return False
