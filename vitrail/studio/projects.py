"""Projects: each data set with its runs, and the next step."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from vitrail.core.cache import place
from vitrail.core.errors import DataError
from vitrail.data.builtin import names as builtin_names
from vitrail.data.options import DEFAULTS
from vitrail.studio.database import Database
from vitrail.studio.run_list import Summary
from vitrail.studio.workspace import Workspace, inside


@dataclass(frozen=True)
class Project:
    """A data set: `source` is what a command names, from the folder of the studio; `options` how it is read."""

    name: str
    source: str
    options: Mapping[str, str]
    runs: tuple[Summary, ...] = ()
    images: tuple[str, ...] = ()

    @property
    def builtin(self) -> bool:
        """Whether it comes with vitrail. Its images are too small for weights pretrained on photographs."""
        return self.source in builtin_names()

    @property
    def best(self) -> Summary | None:
        """The run with the best score; among equal ones the newest."""
        scored = [run for run in self.runs if run.value is not None and run.usable]
        return max(scored, key=lambda run: (_rank(run), run.changed), default=None)


def _rank(run: Summary) -> float:
    value = run.value or 0.0
    return -value if run.lower_is_better else value


TILES, LOOKED = 6, 400
"""Images on the card of a project, and names that are looked at to find them."""

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Endings of files that a browser can get a small image of."""


def some_images(folder: Path) -> tuple[str, ...]:
    """Return some images of a folder, from as many of its folders as possible; only names are read, and few."""
    found: dict[str, list[str]] = {}
    looked = 0
    for path, inner, names in os.walk(folder):
        inner.sort()
        del inner[LOOKED:]
        relative = Path(path).relative_to(folder).as_posix()
        images = [name for name in sorted(names)[:LOOKED] if Path(name).suffix.lower() in IMAGES]
        if images:
            found[relative] = [f"{relative}/{name}" if relative != "." else name for name in images[:TILES]]
        looked += 1 + len(names)
        if looked > LOOKED * TILES:
            break
    turns = (ids[turn] for turn in range(TILES) for ids in found.values() if turn < len(ids))
    return tuple(islice(turns, TILES))


def projects(workspace: Workspace, database: Database, runs: Sequence[Summary] = ()) -> list[Project]:
    """Return the data sets with their runs, the one that was opened last first.

    A folder in `data/` is a data set also when the database does not know it.
    """
    with database.transaction() as connection:
        rows = connection.execute("SELECT * FROM datasets ORDER BY opened DESC, name").fetchall()
    found = [Project(row["name"], row["source"], _given(json.loads(row["options"]))) for row in rows]
    known = {one.name for one in found}
    found += [Project(name, f"data/{name}", {}) for name in _folders(workspace) if name not in known]
    places = {run.name: _place(workspace, run.source) for run in runs}
    return [
        replace(one, runs=tuple(run for run in runs if places[run.name] == _place(workspace, one.source)))
        for one in found
    ]


def _given(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that are not the defaults."""
    return {
        name: value for name, value in options.items() if value and value != getattr(DEFAULTS, name, None)
    }


def _folders(workspace: Workspace) -> Iterator[str]:
    with suppress(OSError):
        for one in sorted(workspace.data.iterdir()):
            if one.is_dir() and not one.name.startswith(".") and inside(one, workspace.data):
                yield one.name


def _place(workspace: Workspace, source: str) -> str:
    """Return a source so that two ways to write it are equal."""
    if not source or source in builtin_names():
        return source
    return str((workspace.folder / source).resolve())


def with_images(workspace: Workspace, project: Project) -> Project:
    """Return a project with the names of some of its images."""
    folder = place("data") / project.source if project.builtin else workspace.folder / project.source
    return replace(project, images=some_images(folder)) if folder.is_dir() else project


def project(workspace: Workspace, database: Database, name: str, runs: Sequence[Summary] = ()) -> Project:
    """Return a data set. DataError if there is none with this name."""
    found = next((one for one in projects(workspace, database, runs) if one.name == name), None)
    if found is None:
        raise DataError(f"There are no images called {name!r} here. Add them first: the page Images.")
    return found


def revision(workspace: Workspace, project: Project) -> int:
    """Return the number of decisions about the images of a data set."""
    from vitrail.data.decisions import History, history_path

    if project.builtin:
        return 0
    return len(History.read(history_path(workspace.folder / project.source)).decisions)
