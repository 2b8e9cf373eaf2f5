"""New pictures to score a trained model on: checked as before a training, but never split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vitrail.core.errors import DataError
from vitrail.core.paths import cache_dir
from vitrail.data.doctor import Progress, examine
from vitrail.data.history import History, history_path
from vitrail.data.layouts import sniff
from vitrail.data.manifest import TEST, Manifest, Row
from vitrail.data.names import count, some
from vitrail.data.prepare import find


class Fresh(NamedTuple):
    """Pictures to be scored, the ids of those that the model has learnt from, and what was decided."""

    manifest: Manifest
    rows: tuple[Row, ...]
    known: tuple[str, ...]
    notes: tuple[str, ...]


def fresh(
    source: str,
    labels: Sequence[str],
    learnt: Sequence[Row] = (),
    *,
    layout: str = "auto",
    progress: Progress | None = None,
) -> Fresh:
    """Check a source whose classes are matched by name with a model's `labels`.

    Where the source has a test split of its own, only that is scored. `learnt` are the rows that the model learnt
    from: pictures that stand there byte by byte are named in `known`.

    Raises:
        DataError: a class that the model does not know, or nothing to score.
    """
    place = find(source)
    understood = sniff(place, layout)
    report = examine(understood, cache=cache_dir() / "check.sqlite", progress=progress)
    rows, decided = History.read(history_path(place)).apply(report.rows)
    manifest = Manifest.of(rows, understood.root)
    strangers = [name for name in manifest.classes if name not in labels]
    if strangers:
        raise DataError(
            f"{source} holds {count(len(strangers), 'class', 'classes')} that the model does not know: "
            f"{some(strangers, 8)}. "
            f"It knows: {some(labels, 8)}. Rename or remove them, or train a model with them."
        )
    notes = list(decided)
    chosen = manifest.rows(TEST)
    if chosen and len(chosen) < len(manifest.rows()):
        notes.append(f"Only the test split of {source} is scored; train and val are left out.")
    chosen = chosen or manifest.rows()
    if not chosen:
        raise DataError(f"{source} holds no usable picture with a label. Look at it: vitrail check {source}")
    seen = {row.hash for row in learnt} - {""}
    known = tuple(row.id for row in chosen if row.hash in seen)
    if known:
        notes.append(
            f"{count(len(known), 'picture')} of them stood in the training: see the score without them."
        )
    return Fresh(manifest, tuple(chosen), known, tuple(notes))


def present(manifest: Manifest) -> Manifest:
    """Return the manifest of a run whose pictures are still where they were; DataError where their folder is gone."""
    if not manifest.root.exists():
        raise DataError(
            f"The pictures of this run stood in {manifest.root}, which is gone. Name a folder: vitrail eval RUN FOLDER"
        )
    return manifest
