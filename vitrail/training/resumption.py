"""The images that a resumed training goes on with: those of its run, or an error that names what is another one."""

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
    """Where the images of a run lie now ("": where they were), and whether changed ones are taken as they are.

    `epochs` are asked for beyond those of the run: messages name the command with them.
    """

    source: str = ""
    changed: bool = False
    epochs: int = 0


class Resumed(NamedTuple):
    """A manifest whose images were looked at, what the history keeps of that, and what is to be said."""

    manifest: Manifest
    event: dict[str, Any]
    lines: tuple[str, ...]
    accepted: bool = False  # whether the manifest holds other contents than it did


def resumed_manifest(run: Run, root: str, where: Place, listeners: Sequence[Listener] = ()) -> Resumed:
    """Return the manifest that a run goes on with, every image in it as the run saw it.

    Raises:
        DataError: the images are gone, or some changed and that was not accepted; the message names them.
    """
    manifest = run.manifest(Path(root))
    if where.source:
        manifest = moved(manifest, where.source)
    elif not manifest.root.exists():
        raise DataError(
            f"The images of {run.folder} lay in {manifest.root}, where nothing is any more. Bring them back to go "
            f"on, or name where they lie now: {_again(run, where, 'PLACE')}. The model that was trained so far "
            "predicts without them."
        )

    def progress(done: int, total: int) -> None:
        for listener in listeners:
            listener(Event("looked", 0, {"done": done, "total": total}))

    began = time.time()
    found = changes_of(run, manifest, progress=progress)
    event = look_event(manifest.root, began)
    if not found.ids():
        return Resumed(manifest, event, ())
    if found.missing or not where.changed:
        raise DataError(_refusal(run, manifest, found, where))
    line = f"{found.text(len(manifest.rows()))}. The run goes on with them as they are now."
    changed = [row.id for row in found.changed]
    return Resumed(_as_they_are(manifest, found), {**event, "pictures": changed}, (line,), accepted=True)


def _refusal(run: Run, manifest: Manifest, found: Changes, where: Place) -> str:
    ways = ["Put them back as they were"]
    if not where.source:
        ways.append(f"or name the place where they lie so now: {_again(run, where, 'PLACE')}")
    if not found.missing:
        ways.append(f"or go on with them as they are: {_again(run, where, where.source, '--changed')}")
    return f"{found.text(len(manifest.rows()))}. {'; '.join(ways)}."


def _again(run: Run, where: Place, source: str, *options: str) -> str:
    more = ["--epochs", where.epochs] if where.epochs else []
    return command("train", *([source] if source else []), "--resume", run.folder, *more, *options)


def _as_they_are(manifest: Manifest, found: Changes) -> Manifest:
    """Return the manifest with the contents that its images have now.

    Raises:
        DataError: one of them cannot be decoded any more.
    """
    memory = Memory(None)
    facts = {row.id: look(manifest.root, row.path, memory, row.part) for row in found.changed}
    broken = [f"{name}: {one.error}" for name, one in facts.items() if one.error]
    if broken:
        many = count(len(broken), "changed image")
        raise DataError(
            f"{many} cannot be used, the first because of {broken[0]} Put them back as they were."
        )
    rows = [
        row._replace(hash=facts[row.id].hash) if row.id in facts else row for row in manifest.rows(state=None)
    ]
    return manifest.replace(rows)
