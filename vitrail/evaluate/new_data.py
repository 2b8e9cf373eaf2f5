"""Open new images to evaluate a trained model on: checked as for training, but never split."""

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
from vitrail.evaluate.match_classes import match_classes
from vitrail.runs.image_changes import without_changes
from vitrail.runs.run import Run


class NewData(NamedTuple):
    """Images to score, their description, the ids of those used in training, and notes for the user."""

    manifest: Manifest
    rows: tuple[Row, ...]
    called: str
    known: tuple[str, ...]
    notes: tuple[str, ...]
    unusable: tuple[Row, ...] = ()  # readable, but without a usable target


def open_new_data(
    source: str,
    task: Targets[Any],
    learnt: Sequence[Row] | None,
    *,
    read: LayoutOptions = DEFAULTS,
    progress: Progress | None = None,
) -> NewData:
    """Check a source of images with targets for the model's task; classes are matched by name, and those of
    ImageNet by their WordNet ids.

    If the source has its own test split, only this is scored. `learnt` are the training rows of the model (None if
    unknown): images that are byte-identical with one of them are listed in `known`.

    Raises:
        DataError: the model does not know a class, or there is nothing to score.
    """
    place = find(source)
    layout = decided(source, place, read, _kind_of(task))
    if layout.refusal and layout.truth.kind != task.truth.kind:
        raise DataError(layout.refusal)
    layout, matched = match_classes(layout, task.truth)
    report = _examined(layout, task, progress)
    rows, taken = History.read(history_path(place)).apply(report.rows, report.again)
    manifest = Manifest.of(rows, layout.root, task.gather(layout.truth, [r for r in rows if r.state == KEPT]))
    _check_classes(source, manifest.truth.names, task.truth.names)
    notes = [*([matched] if matched else []), *taken]
    unusable = report.decided(rows, task).unusable()
    if unusable:
        which = shorten(row.id for row in unusable)
        notes.append(f"{count(len(unusable), 'image')} left out because the label cannot be used: {which}.")
    chosen = manifest.rows(TEST)
    if chosen and len(chosen) < len(manifest.rows()):
        notes.append(f"Only the test split of {source} is scored; train and val are left out.")
    chosen = chosen or manifest.rows()
    if not chosen:
        again = command("check", source, *layout.asked.words())
        raise DataError(f"{source} has no usable image with a label. Check it: {again}")
    hashes = {row.hash for row in learnt or ()} - {""}
    known = tuple(row.id for row in chosen if row.hash in hashes)
    if learnt is None:
        notes.append(
            "It is unknown whether these images are new to the model: the manifest.csv of its run is not next to "
            "it."
        )
    if known:
        notes.append(f"{len(known):,} of the images were used in training.")
    called = _describe(len(chosen), len(known), learnt is not None)
    return NewData(manifest, tuple(chosen), called, known, tuple(notes), unusable)


def _check_classes(source: str, names: Sequence[str], labels: Sequence[str]) -> None:
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise DataError(
            f"{source} has {count(len(unknown), 'class', 'classes')} that the model does not know: "
            f"{shorten(unknown, 8)}. "
            f"It knows: {shorten(labels, 8)}. Rename or remove them, or train a model with them."
        )


def _examined(layout: Layout, task: Targets[Any], progress: Progress | None) -> Report:
    """Check a source with the targets of the model's task, classes matched by name."""

    def targets(rows: Sequence[Row]) -> Targets[Any]:
        task.follow_header(layout.truth, rows)
        return task

    return examine(layout, targets=targets, cache=cache_dir() / "check.sqlite", progress=progress)


def _kind_of(task: Targets[Any]) -> str | None:
    """Return the name of the default task for this kind of targets, if there is one."""
    return catalog.DEFAULT_TASKS.get(task.truth.kind)


def _describe(pictures: int, known: int, known_training: bool) -> str:
    """Return the words after the number of images: "new" only if none of them was used in training."""
    noun = "image" if pictures == 1 else "images"
    if not known:
        return f"new {noun}" if known_training else noun
    if pictures == 1:
        return f"{noun}, which was used in training"
    which = "all of which" if known == pictures else f"of which {known:,}"
    return f"{noun}, {which} were used in training"


def training_rows(model: str) -> list[Row] | None:
    """Return the images that the model of a run was trained on; None if there is no manifest next to it.

    A draft is trained on all images of its run, other models on all except the test split.
    """
    path = Path(model)
    run = Run(path if path.is_dir() else path.parent)
    own = path.is_dir() or path.name == run.model_path.name
    if not (own and run.recipe_path.is_file() and run.manifest_path.is_file()):
        return None
    rows = run.manifest(run.folder).rows()
    return rows if run.recipe().training.tune == "draft" else [row for row in rows if row.split != TEST]


class OwnTests(NamedTuple):
    """A run's own manifest, the same without test images that changed, and notes about these."""

    manifest: Manifest
    scored: Manifest
    notes: tuple[str, ...]


def own_tests(run: Run) -> OwnTests:
    """Return the test images of a run, without those that changed since.

    Raises:
        DataError: their folder is missing, or all of them changed.
    """
    manifest = run.manifest(run.root())
    if not manifest.root.exists():
        raise DataError(
            f"The images of this run were in {manifest.root}, which no longer exists. Name a folder: vitrail eval "
            f"RUN FOLDER, or tell the run where they are now: {command('train', 'PLACE', '--resume', run.folder)}"
        )
    scored, changed = without_changes(run, manifest, (TEST,))
    if changed and not scored.rows(TEST):
        raise DataError(
            f"{changed}. Restore them, or score them as new images: {command('eval', run.folder, manifest.root)}"
        )
    return OwnTests(manifest, scored, (f"{changed}: left out of the score.",) if changed else ())
