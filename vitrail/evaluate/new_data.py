"""New images to score a trained model on: checked as before a training, but never split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core import catalog
from vitrail.core.environment import cache_dir
from vitrail.core.errors import DataError
from vitrail.core.text import command
from vitrail.data.decisions import History, history_path
from vitrail.data.doctor import Progress, Report, examine
from vitrail.data.labels import count, shorten
from vitrail.data.layouts import Layout
from vitrail.data.manifest import KEPT, TEST, Manifest, Row
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.data.prepare import decided, find
from vitrail.data.targets import Targets
from vitrail.runs.image_changes import without_changes
from vitrail.runs.run import Run


class NewData(NamedTuple):
    """Images to be scored, what they are called, the ids of those that were learned from, and what was decided."""

    manifest: Manifest
    rows: tuple[Row, ...]
    called: str
    known: tuple[str, ...]
    notes: tuple[str, ...]
    unusable: tuple[Row, ...] = ()  # readable, but kept out for their truth


def open_new_data(
    source: str,
    task: Targets[Any],
    learnt: Sequence[Row] | None,
    *,
    read: LayoutOptions = DEFAULTS,
    progress: Progress | None = None,
) -> NewData:
    """Check a source whose truths the model's task reads; classes are matched by name.

    Where the source has a test split of its own, only that is scored. `learnt` are the rows that the model learned
    from, None where nothing tells them: images that stand there byte by byte are named in `known`.

    Raises:
        DataError: a class that the model does not know, or nothing to score.
    """
    place = find(source)
    understood = decided(source, place, read, _kind_of(task))
    if understood.refusal and understood.truth.kind != task.truth.kind:
        raise DataError(understood.refusal)
    report = _examined(understood, task, progress)
    rows, taken = History.read(history_path(place)).apply(report.rows, report.again)
    manifest = Manifest.of(
        rows, understood.root, task.gather(understood.truth, [r for r in rows if r.state == KEPT])
    )
    _refuse_strangers(source, manifest.truth.names, task.truth.names)
    notes = list(taken)
    unusable = report.decided(rows, task).unusable()
    if unusable:
        which = shorten(row.id for row in unusable)
        notes.append(f"{count(len(unusable), 'image')} whose truth cannot be used left out: {which}.")
    chosen = manifest.rows(TEST)
    if chosen and len(chosen) < len(manifest.rows()):
        notes.append(f"Only the test split of {source} is scored; train and val are left out.")
    chosen = chosen or manifest.rows()
    if not chosen:
        again = command("check", source, *understood.asked.words())
        raise DataError(f"{source} holds no usable image with a label. Look at it: {again}")
    seen = {row.hash for row in learnt or ()} - {""}
    known = tuple(row.id for row in chosen if row.hash in seen)
    if learnt is None:
        notes.append(
            "It cannot be known whether these images are new to the model: the manifest.csv of its run is not "
            "beside it."
        )
    if known:
        notes.append(f"{len(known):,} of the images stood in the training.")
    called = _called(len(chosen), len(known), learnt is not None)
    return NewData(manifest, tuple(chosen), called, known, tuple(notes), unusable)


def _refuse_strangers(source: str, names: Sequence[str], labels: Sequence[str]) -> None:
    strangers = [name for name in names if name not in labels]
    if strangers:
        raise DataError(
            f"{source} holds {count(len(strangers), 'class', 'classes')} that the model does not know: "
            f"{shorten(strangers, 8)}. "
            f"It knows: {shorten(labels, 8)}. Rename or remove them, or train a model with them."
        )


def _examined(understood: Layout, task: Targets[Any], progress: Progress | None) -> Report:
    """Look at a source as the model's task reads it, the classes by their names."""

    def targets(rows: Sequence[Row]) -> Targets[Any]:
        task.follow_header(understood.truth, rows)
        return task

    return examine(understood, targets=targets, cache=cache_dir() / "check.sqlite", progress=progress)


def _kind_of(task: Targets[Any]) -> str | None:
    """Return the name of the usual task for truths of the kind that a task learns, if there is one."""
    return catalog.DEFAULT_TASKS.get(task.truth.kind)


def _called(pictures: int, known: int, told: bool) -> str:
    """Return what stands behind the number of images: new only where none of them stood in the training."""
    noun = "picture" if pictures == 1 else "pictures"
    if not known:
        return f"new {noun}" if told else noun
    which = "which" if pictures == 1 else "all of which" if known == pictures else f"of which {known:,}"
    return f"{noun}, {which} stood in the training"


def training_rows(model: str) -> list[Row] | None:
    """Return the images that the model of a run has learned from; None where no manifest beside it tells them.

    A draft learned from all images of its run, others from all but the test split.
    """
    path = Path(model)
    run = Run(path if path.is_dir() else path.parent)
    own = path.is_dir() or path.name == run.model_path.name
    if not (own and run.recipe_path.is_file() and run.manifest_path.is_file()):
        return None
    rows = run.manifest(run.folder).rows()
    return rows if run.recipe().training.tune == "draft" else [row for row in rows if row.split != TEST]


class OwnTests(NamedTuple):
    """A run's own list of images, the same without test images that changed, and the note on these."""

    manifest: Manifest
    scored: Manifest
    notes: tuple[str, ...]


def own_tests(run: Run) -> OwnTests:
    """Return the images that a run keeps to test itself, as far as they are still those that it saw.

    Raises:
        DataError: their folder is gone, or not one of them is as it was.
    """
    manifest = run.manifest(run.root())
    if not manifest.root.exists():
        raise DataError(
            f"The images of this run stood in {manifest.root}, which is gone. Name a folder: vitrail eval RUN "
            f"FOLDER, or tell the run where they lie now: {command('train', 'PLACE', '--resume', run.folder)}"
        )
    scored, gone = without_changes(run, manifest, (TEST,))
    if gone and not scored.rows(TEST):
        raise DataError(
            f"{gone}. Put them back as they were, or score them as new ones: "
            f"{command('eval', run.folder, manifest.root)}"
        )
    return OwnTests(manifest, scored, (f"{gone}: left out of the score.",) if gone else ())
