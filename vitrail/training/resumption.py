"""Check the images of a resumed training: they must be those of its run, else an error names the changed ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.errors import DataError
from vitrail.core.text import command
from vitrail.data.changed_images import Changes
from vitrail.data.image_facts import Memory, look
from vitrail.data.labels import count
from vitrail.data.manifest import Manifest
from vitrail.runs.image_changes import changes_of, look_event, moved
from vitrail.runs.run import Run
from vitrail.training.loop import Event
from vitrail.training.progress import Listener


@dataclass(frozen=True)
class Place:
    """The present folder of a run's images ("": unchanged), and whether changed images are accepted.

    `epochs` are the additional epochs; the commands in messages repeat them.
    """

    source: str = ""
    changed: bool = False
    epochs: int = 0


class Resumed(NamedTuple):
    """A manifest with checked images, the event for the run's history, and lines to print."""

    manifest: Manifest
    event: dict[str, Any]
    lines: tuple[str, ...]
    accepted: bool = False  # whether changed images were accepted, so that the manifest is new


def resumed_manifest(run: Run, root: str, where: Place, listeners: Sequence[Listener] = ()) -> Resumed:
    """Return the manifest for resuming a run, after checking that its images are unchanged.

    Raises:
        DataError: images are missing, or some changed and this was not accepted. The message names them.
    """
    manifest = run.manifest(Path(root))
    if where.source:
        manifest = moved(manifest, where.source)
    elif not manifest.root.exists():
        raise DataError(
            f"The images of {run.folder} were in {manifest.root}, which does not exist any more. Put them back, or "
            f"name their present folder: {_resume_command(run, where, 'PLACE')}. The model trained so far can "
            "predict without them."
        )

    def progress(done: int, total: int) -> None:
        for listener in listeners:
            listener(Event("looked", 0, {"done": done, "total": total}))

    began = time.time()
    changes = changes_of(run, manifest, progress=progress)
    event = look_event(manifest.root, began)
    if not changes.ids():
        return Resumed(manifest, event, ())
    if changes.missing or not where.changed:
        raise DataError(_refusal(run, manifest, changes, where))
    line = f"{changes.text(len(manifest.rows()))}. The run continues with them as they are now."
    changed = [row.id for row in changes.changed]
    return Resumed(
        _with_new_contents(manifest, changes), {**event, "pictures": changed}, (line,), accepted=True
    )


def _refusal(run: Run, manifest: Manifest, changes: Changes, where: Place) -> str:
    choices = ["Put the original images back"]
    if not where.source:
        choices.append(f"or name the folder that holds them now: {_resume_command(run, where, 'PLACE')}")
    if not changes.missing:
        command = _resume_command(run, where, where.source, "--changed")
        choices.append(f"or continue with the images as they are: {command}")
    return f"{changes.text(len(manifest.rows()))}. {'; '.join(choices)}."


def _resume_command(run: Run, where: Place, source: str, *options: str) -> str:
    more = ["--epochs", where.epochs] if where.epochs else []
    return command("train", *([source] if source else []), "--resume", run.folder, *more, *options)


def _with_new_contents(manifest: Manifest, changes: Changes) -> Manifest:
    """Return the manifest with the present contents (hashes) of its images.

    Raises:
        DataError: one of them cannot be decoded any more.
    """
    memory = Memory(None)
    facts = {row.id: look(manifest.root, row.path, memory, row.part) for row in changes.changed}
    broken = [f"{name}: {one.error}" for name, one in facts.items() if one.error]
    if broken:
        many = count(len(broken), "changed image")
        raise DataError(
            f"{many} cannot be used, the first because of {broken[0]} Put the original images back."
        )
    rows = [
        row._replace(hash=facts[row.id].hash) if row.id in facts else row for row in manifest.rows(state=None)
    ]
    return manifest.replace(rows)
