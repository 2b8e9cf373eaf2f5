"""What every layout stands on: a tree of files, on disk or in archives, and the entries found in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vitrail.core.errors import DataError
from vitrail.core.paths import expanded
from vitrail.core.text import printable
from vitrail.data import archives
from vitrail.data.names import count, is_picture, join_labels, natural, some, split_labels
from vitrail.data.source import read
from vitrail.data.tables import is_table
from vitrail.data.truth import Truth

CLASS = Truth("class")


class Entry(NamedTuple):
    """One picture as the layout names it, not yet opened; `target` and `part` as in a manifest's row.

    `trouble` says, as a predicate, why it cannot be used even before it is opened; empty where it can.
    """

    id: str
    path: str
    target: str
    split: str = ""
    group: str = ""
    trouble: str = ""
    part: str = ""


@dataclass(frozen=True)
class Layout:
    """A source that was understood: `why` is one plain sentence, `notes` say what was left aside.

    `truth` says what its targets are; `refusal` what is said where no task learns such truths unless it is named.
    """

    name: str
    root: Path
    why: str
    found: tuple[Entry, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    truth: Truth = CLASS
    refusal: str = ""

    def entries(self) -> Iterator[Entry]:
        """Yield the pictures in natural order of their ids."""
        yield from sorted(self.found, key=lambda entry: natural(entry.id))


def truth_of(entries: Iterable[Entry]) -> Truth:
    """Return what the targets of a table are: classes where a picture has several, else a class each."""
    several = any(len(split_labels(entry.target)) > 1 for entry in entries if not entry.trouble)
    return Truth("classes" if several else "class")


@dataclass(frozen=True)
class Tree:
    """Every file of a source in natural order: its name inside the source → its path below `root`.

    `table` is the one table that was named as the source; `refused` holds what may not be read, `notes` what
    was left aside while looking.
    """

    name: str
    root: Path
    files: dict[str, str] = field(repr=False)
    refused: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()
    table: str = ""

    @classmethod
    def look(cls, source: str | Path) -> Tree:
        """List a folder, an archive, or the folder around a single file.

        Raises:
            DataError: missing, not permitted, or a file of no known kind.
        """
        path = expanded(source)
        if not path.exists():
            raise DataError(f"{source} does not exist. Give a folder of pictures, one folder a class.")
        if path.is_dir():
            return _folder(path)
        if archives.is_archive(path.name):
            files, refused = _archive(path, path.name)
            return cls(path.name, path.parent, files, refused)
        if path.name.lower().endswith(archives.CLOSED):
            raise DataError(
                f"{source} is packed in a way that is not read in place. Pack it as .zip or .tar."
            )
        if not (is_table(path.name) or path.suffix in {".npz", ".arrow"}):
            raise DataError(
                f"{source} is a single file that holds no data set. Give a folder, zip, tar or table."
            )
        return cls(path.name, path.parent, {path.name: path.name}, table=path.name)

    @cached_property
    def pictures(self) -> list[str]:
        """The names that promise a picture."""
        return [name for name in self.files if is_picture(name)]

    def read(self, name: str) -> bytes:
        """Return the bytes of one file."""
        return read(self.root, self.files[name])

    def entry(self, name: str, target: str, split: str = "", group: str = "") -> Entry:
        """Return the entry of one file; its path is its id."""
        return Entry(self.files[name], self.files[name], target, split, group)

    def of_class(self, name: str, known: str, split: str = "") -> Entry:
        """Return the entry of one file that shows one class."""
        return self.entry(name, join_labels([known]), split)


def _archive(file: Path, prefix: str) -> tuple[dict[str, str], tuple[Entry, ...]]:
    found = archives.members(file)
    files = {m.name: f"{prefix}!{m.name}" for m in found if not m.trouble and not _hidden(m.name)}
    refused = tuple(_refused(f"{prefix}!{m.name}", m.trouble) for m in found if m.trouble)
    return files, refused


def _refused(name: str, trouble: str) -> Entry:
    return Entry(printable(name), printable(name), "", trouble=trouble)


def _folder(root: Path) -> Tree:
    walk = _Walk(root)
    if not walk.files and walk.closed:
        raise DataError(f"{root} may not be read. Change its permissions: chmod -R u+rX {root.name}.")
    refused = [_refused(name, "is a folder that may not be opened") for name in walk.closed]
    refused += [_refused(name, "has a name that is no UTF-8: rename it") for name in walk.foreign]
    notes = []
    if walk.loops:
        notes.append(
            f"{count(len(walk.loops), 'link')} leading back upwards not followed: {some(walk.loops)}."
        )
    files = {name: name for name in walk.files}
    packed = [name for name in walk.files if archives.is_archive(name)]
    if packed and not any(is_picture(name) for name in walk.files):  # shards, or train.zip beside val.zip
        for name in packed:
            inner, bad = _archive(root / name, name)
            stem = name[
                : name.lower().rindex(next(s for s in archives.SUFFIXES[::-1] if name.lower().endswith(s)))
            ]
            del files[name]
            files.update((f"{stem}/{inside}", path) for inside, path in inner.items())
            refused += bad
    return Tree(root.name, root, files, tuple(refused), tuple(notes))


class _Walk:
    """Every file under a root in natural order, links followed once, and what could not be walked."""

    def __init__(self, root: Path) -> None:
        self.files: list[str] = []
        self.closed: list[str] = []
        self.loops: list[str] = []
        self.foreign: list[str] = []
        self._visit(root, "", frozenset())

    def _visit(self, folder: Path, prefix: str, above: frozenset[str]) -> None:
        real = os.path.realpath(folder)
        if real in above:
            self.loops.append(prefix.rstrip("/"))
            return
        try:
            with os.scandir(folder) as found:
                items = sorted(found, key=lambda item: natural(item.name))
        except OSError:
            self.closed.append(prefix.rstrip("/") or str(folder))
            return
        for item in items:
            if _hidden(item.name):
                continue
            if printable(item.name) != item.name:  # no manifest, a file of UTF-8, can name it
                self.foreign.append(prefix + item.name)
            elif item.is_dir():
                self._visit(Path(item.path), f"{prefix}{item.name}/", above | {real})
            else:
                self.files.append(prefix + item.name)


def _hidden(name: str) -> bool:
    """Tell what systems, editors and `vitrail check` leave behind: it is nobody's data."""
    parts = name.split("/")
    ours = parts[-1].endswith(".vitrail.jsonl")
    return (
        ours or parts[-1].startswith(".") or parts[-1] in {"Thumbs.db", "desktop.ini"} or "__MACOSX" in parts
    )
