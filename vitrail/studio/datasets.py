"""The data sets of a studio: folders of images that it holds, and places on this machine that were only named."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import writing
from vitrail.data.archives import is_archive
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.studio.database import Database
from vitrail.studio.dataset_table import Dataset, DatasetTable
from vitrail.studio.workspace import Workspace, inside, safe_name

if TYPE_CHECKING:
    from vitrail.data.decisions import History, What
    from vitrail.data.findings import Finding

RESERVED = frozenset(("new",))
"""Names that are pages."""

Signature = tuple[object, ...]
"""Changes when the files of a data set do."""


class Datasets:
    """The data sets of a workspace, and the decisions about them; every change is on disk when a method returns."""

    def __init__(self, workspace: Workspace, database: Database) -> None:
        self.workspace, self._table = workspace, DatasetTable(database)
        self._lock = RLock()
        self._changes: Counter[str] = Counter()
        self._histories: dict[Path, tuple[tuple[int, int], History]] = {}

    def all(self) -> list[Dataset]:
        """Return the data sets, the last opened first; a folder in `data/` is one, whoever put it there."""
        rows = self._table.rows()
        known = {one.source for one in rows if one.uploaded}
        with os.scandir(self.workspace.data) as listing:
            found = [_held(one.name) for one in listing if one.is_dir() or is_archive(one.name)]
        new = [
            replace(one, opened=(self.workspace.folder / one.source).stat().st_mtime)
            for one in found
            if one.source not in known and not one.name.startswith(".") and self._holds(one)
        ]
        there = [one for one in rows if not one.uploaded or self._holds(one)]
        return sorted([*there, *new], key=lambda one: -one.opened)

    def get(self, name: str) -> Dataset:
        """Return a data set. DataError if there is none with this name."""
        rows = self._table.rows()
        found = next(
            (one for one in rows if one.name == name and (not one.uploaded or self._holds(one))), None
        )
        if found is not None:
            return found
        held = _held(name)
        plain = safe_name(name) == name and not name.startswith(".")
        if plain and held.source not in {one.source for one in rows} and self._holds(held):
            return held
        raise DataError(f"There are no images called {name!r} here. See all: the page Images.")

    def listed(self, source: str) -> Dataset | None:
        """Return the data set of the list that a run names as its source; None if it is not in the list."""
        key = self.key(source)
        return next((one for one in self.all() if self.key(one.source) == key), None) if source else None

    def of_source(self, source: str) -> Dataset | None:
        """Return the data set that a run names as its source, in the list or not; None if it is not here."""
        known = self.listed(source)
        if known is not None or not source:
            return known
        place = self._path(source)
        return Dataset(place.name, str(place), uploaded=False) if os.path.exists(place) else None

    def key(self, source: str) -> str:
        """Return a source so that two ways to write it are equal."""
        from vitrail.data import builtin

        below = self.workspace.folder / source
        return source if source in builtin.names() and not os.path.exists(below) else str(below.resolve())

    def create(self, wanted: str) -> Dataset:
        """Create an empty data set that the studio holds; a name that is taken gets a number."""
        with self._lock:
            name = self.free_name(wanted)
            with writing(self.workspace.data / name):
                (self.workspace.data / name).mkdir()
            return self._table.write(replace(_held(name), opened=time.time()))

    def add_place(self, source: str, wanted: str = "") -> Dataset:
        """Add a place on this machine, or a built-in set; nothing is copied. DataError if nothing is there."""
        from vitrail.data import builtin
        from vitrail.data.prepare import find

        source = source.strip()
        if source not in builtin.names():
            path = find(source)
            if not source or not path.exists():
                raise DataError(
                    f"{source or 'An empty path'} does not exist on this computer. Check its spelling."
                )
            source = str(path.resolve())
        with self._lock:
            known = self.listed(source)
            if known is not None:
                return self._table.write(replace(known, opened=time.time()))
            name = self.free_name(wanted or Path(source).name or "images")
            return self._table.write(Dataset(name, source, uploaded=False, opened=time.time()))

    def rename(self, dataset: Dataset, wanted: str) -> Dataset:
        """Give a data set another name. Its folder stays where it is: runs and decisions refer to it.

        Raises:
            DataError: the name is taken, or none.
        """
        with self._lock:
            name = safe_name(wanted).lstrip(".")
            own = self.workspace.data / name == self.workspace.folder / dataset.source
            if name == dataset.name:
                return dataset
            if not own and self.free_name(name) != name:
                raise DataError(f"There are images called {name!r} already. Choose another name.")
            renamed = self._table.write(replace(dataset, name=name))
            self.forget(dataset)
            return renamed

    def free_name(self, wanted: str) -> str:
        """Return a name that no data set has, like the wanted one."""
        base = safe_name(wanted).lstrip(".") or "images"
        taken = {one.name for one in self._table.rows()} | RESERVED
        number, name = 2, base
        while name in taken or (self.workspace.data / name).exists():
            name, number = f"{base} {number}", number + 1
        return name

    def place(self, dataset: Dataset) -> Path:
        """Return where the images are. DataError if an uploaded set leads out of the workspace."""
        if not dataset.uploaded:
            return self._path(dataset.source)
        folder = self.workspace.folder / dataset.source
        if not inside(folder, self.workspace.data):
            raise DataError(
                f"{dataset.name} leads out of the studio's folder. Name its path as a place instead."
            )
        return folder

    def read_as(self, dataset: Dataset, values: Mapping[str, str]) -> Dataset:
        """Change how a data set is read; an empty value goes back to the default."""
        known = {one.name: getattr(DEFAULTS, one.name) for one in fields(LayoutOptions)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise DataError(
                f"{unknown[0]!r} says nothing about how images are read. Use: {', '.join(known)}."
            )
        return self._table.write(replace(dataset, options=dataset.options.with_words(values)))

    def forget(self, dataset: Dataset) -> None:
        """Take a data set out of the list; its images stay."""
        self._table.remove(dataset)

    def remember(self, dataset: Dataset) -> Dataset:
        """Put a data set back into the list."""
        return self._table.write(dataset)

    # What changed

    def changed(self, dataset: Dataset) -> None:
        """Note that files of a data set changed."""
        self._changes[dataset.name] += 1

    def signature(self, dataset: Dataset) -> Signature:
        """Return what changes with the files: times of the folders, and the number of changes through the studio."""
        place = self.place(dataset)
        stamps: list[object] = [_stamp(place)]
        if place.is_dir():
            with os.scandir(place) as listing:
                stamps += sorted(
                    (one.name, _stamp(Path(one.path))) for one in listing if not one.is_symlink()
                )
        return (dataset.source, dataset.options, self._changes[dataset.name], *stamps)

    # Decisions

    def history_file(self, dataset: Dataset) -> Path:
        """Return the file with the decisions, the same as for `vitrail check`."""
        from vitrail.data.decisions import history_path

        return history_path(self.place(dataset))

    def history(self, dataset: Dataset) -> History:
        """Return the decisions about a data set."""
        from vitrail.data.decisions import History

        file = self.history_file(dataset)
        stamp = _stamp(file)
        known = self._histories.get(file)
        if known is None or known[0] != stamp:
            known = self._histories[file] = stamp, History.read(file)
        return known[1]

    def revision(self, dataset: Dataset) -> int:
        """Return the number of decisions: what a run writes down of the data that it saw."""
        return len(self.history(dataset).decisions)

    def revision_at(self, dataset: Dataset, seconds: float) -> int:
        """Return the number of decisions that there were at a time: what a run saw that read the images then."""
        return sum(
            datetime.fromisoformat(one.time).timestamp() <= seconds for one in self.history(dataset).decisions
        )

    def decide(
        self, dataset: Dataset, what: What, ids: Iterable[str], value: str = "", reason: str = ""
    ) -> int:
        """Write one decision and return its number."""
        with self._lock:
            history = self.history(dataset).decide(what, ids, value, reason)
            history.write(self.history_file(dataset))
            return history.decisions[-1].number

    def undo(self, dataset: Dataset, numbers: Sequence[int]) -> list[int]:
        """Undo decisions, all or none, and return the numbers of the decisions that did it: undo those to redo."""
        with self._lock:
            history = self.history(dataset)
            for number in numbers:
                history = history.undo(number)
            history.write(self.history_file(dataset))
            return [one.number for one in history.decisions[-len(numbers) :]] if numbers else []

    def note(self, dataset: Dataset, findings: Iterable[Finding]) -> History:
        """Write down what a check decided by itself, so that it can be undone; return the history."""
        with self._lock:
            before = self.history(dataset)
            after = before.note(findings)
            if after != before:
                try:
                    after.write(self.history_file(dataset))
                except RunError:  # a place that cannot be written: the check is right without it
                    return before
            return after

    def _holds(self, dataset: Dataset) -> bool:
        folder = self.workspace.folder / dataset.source
        return folder.exists() and inside(folder, self.workspace.data)

    def _path(self, source: str) -> Path:
        """Return the path of a source; one that is relative is looked for in the studio's folder first."""
        from vitrail.data.prepare import find

        below = self.workspace.folder / source
        return below if os.path.exists(below) else find(source)


def _held(name: str) -> Dataset:
    """Return a data set that lies in the studio's folder `data/`."""
    return Dataset(name, f"data/{name}", uploaded=True)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
