"""vitrail weights."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.weights.checkpoints import Checkpoint


def weights(
    action: str = "*",
    path: str = "",
    /,
    *,
    name: str | None = None,
    model: str | None = None,
    network: str | None = None,
    json: bool = False,
) -> int:
    """List available pretrained weights with their tasks and licences, or add weights that you downloaded.

        vitrail weights
        vitrail weights 'vit_b16*'
        vitrail weights add folder-or-file

    Parameters
    ----------
    action
        a pattern for the names to list, or add
    path
        with add: a file, or a folder of timm or Hugging Face; it stays where it is
    name
        with add: the name to use for it
    model
        with add: the network it belongs to, if the file does not say
    network
        with add: settings that cannot be read from tensors, such as heads=3,image=[64,96]
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say, table
    from vitrail.core.errors import SettingError
    from vitrail.core.text import command
    from vitrail.runs.train_options import network_settings
    from vitrail.weights.local_registry import add

    if action == "add":
        from pathlib import Path

        if not path:
            raise SettingError("Name the file or folder to add: vitrail weights add FOLDER")
        entry = add(Path(path), name=name, model=model, network=network_settings(network))
        for line in entry.assumed:
            say(f"{entry.name}: {line}")
        if json:
            print_json({"name": entry.name, "model": entry.model, "path": str(entry.path)})
        else:
            say(f"{entry.name} ({entry.model or 'a network of its own'}) was added.")
            sys.stdout.write(command("train", "photos/", "--weights", entry.name) + "\n")
        return 0
    rows = _rows(action)
    if json:
        print_json(rows)
        return 0
    cells = [
        [r["name"], r["model"] or "", r["task"] or "", r["where"], r["licence"] or "not stated"] for r in rows
    ]
    sys.stdout.write(table(["name", "network", "task", "where", "licence"], cells) + "\n")
    say("Others of timm, and owner/repository of the hub, work too: vitrail train photos/ --weights NAME")
    say("Those with a head for a task answer without training: vitrail predict NAME photo.jpg")
    return 0


def _rows(pattern: str) -> list[dict[str, Any]]:
    from vitrail.core.errors import WeightsError, nearest
    from vitrail.weights.checkpoints import listed
    from vitrail.weights.local_registry import known

    added = [
        {"name": entry.name, "model": entry.model, "task": None, "where": "added by you", "licence": None}
        for entry in known()
        if fnmatchcase(entry.name, pattern)
    ]
    published = [_published(row) for row in listed() if fnmatchcase(row.name, pattern) or _of(row, pattern)]
    if not added and not published:
        near = nearest(pattern, [row.name for row in listed()])
        hint = f" Did you mean {near!r}?" if near else ""
        raise WeightsError(f"There are no weights called {pattern!r}.{hint} See all: vitrail weights")
    return added + published


def _of(row: Checkpoint, pattern: str) -> bool:
    """Return whether weights belong to a network whose name, timm's or ours, matches the pattern."""
    from vitrail.models.names import our_name

    name = row.model or ""
    return any(fnmatchcase(one, pattern) for one in (name, our_name(name)[0]))


def _published(row: Checkpoint) -> dict[str, Any]:
    from vitrail.models.names import our_name
    from vitrail.weights.download import cached

    where = "here" if cached(row.repo, row.files) else "at the hub"
    task = row.task if row.classes or row.task != "classify" else None
    name = our_name(row.model or "")[0]
    return {"name": row.name, "model": name, "task": task, "where": where, "licence": row.licence}
