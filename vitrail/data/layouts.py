"""Looks at a source and says what it is, and why: one small class a layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from vitrail.core.errors import DataError, UnknownNameError
from vitrail.data.names import count, is_picture, label, natural, some, split_of


class Entry(NamedTuple):
    """One picture as the layout names it, not yet opened; `label` as in a manifest's row."""

    id: str
    path: str
    label: str
    split: str = ""
    group: str = ""


class Layout(Protocol):
    """A source that was understood: `why` is one plain sentence, `notes` say what was left aside."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def why(self) -> str: ...  # noqa: D102
    @property
    def root(self) -> Path: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102
    def entries(self) -> Iterator[Entry]: ...  # noqa: D102


LAYOUTS = ("folders",)


def sniff(source: str | Path, layout: str = "auto") -> Layout:
    """Look at a source and return its layout; `layout` names one where "auto" would guess wrong.

    Raises:
        DataError: missing, unreadable, empty, or nothing that is understood.
        SettingError: the layout's name is unknown.
    """
    if layout not in ("auto", *LAYOUTS):
        raise UnknownNameError("layout", layout, LAYOUTS, f"Known are auto, {', '.join(LAYOUTS)}.")
    root = Path(source).expanduser()
    if not root.exists():
        raise DataError(f"{source} does not exist. Give a folder of pictures, one folder a class.")
    if not root.is_dir():
        raise DataError(f"{source} is no folder. Give a folder of pictures, one folder a class.")
    return ClassFolders.look(root)


@dataclass(frozen=True)
class ClassFolders:
    """root/class/*.jpg, or root/train|val|test/class/*.jpg; deeper folders belong to their class."""

    root: Path
    why: str
    found: tuple[Entry, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    name: str = "folders"

    def entries(self) -> Iterator[Entry]:
        """Yield the pictures in natural order of their paths."""
        yield from self.found

    @classmethod
    def look(cls, root: Path) -> ClassFolders:
        """Walk the folder once and tell classes from splits.

        Raises:
            DataError: unreadable, no pictures, no classes, or one class only.
        """
        walk = _Walk(root)
        pictures = [path for path in walk.files if is_picture(path)]
        if not pictures:
            raise DataError(
                f"{root} holds no pictures. Put them into one folder a class: {root.name}/cat/1.jpg."
            )
        depth = _wrapping(pictures)
        parts = [tuple(path.split("/"))[depth:] for path in pictures]
        has_splits = _has_splits(parts)
        entries, stray = [], []
        for path, part in zip(pictures, parts, strict=True):
            split = split_of(part[0]) or "" if has_splits else ""
            inner = part[1:] if split else part
            if len(inner) < 2:
                stray.append(path)
            else:
                entries.append(Entry(path, path, label(inner[0]), split))
        classes = sorted({entry.label for entry in entries}, key=natural)
        _refuse_few(root, classes, len(pictures))
        notes = _notes(walk, len(walk.files) - len(pictures), stray)
        return cls(root, _why(has_splits, classes, entries), tuple(entries), notes)


class _Walk:
    """Every file under a root in natural order, links followed once, and what could not be walked."""

    def __init__(self, root: Path) -> None:
        self.files: list[str] = []
        self.closed: list[str] = []
        self.loops: list[str] = []
        self._root = root
        self._visit(root, "", frozenset())
        if not self.files and self.closed:
            raise DataError(f"{root} may not be read. Change its permissions: chmod -R u+rX {root.name}.")

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
            if item.name.startswith(".") or item.name == "__MACOSX":
                continue
            if item.is_dir():
                self._visit(Path(item.path), f"{prefix}{item.name}/", above | {real})
            else:
                self.files.append(prefix + item.name)


def _wrapping(paths: list[str]) -> int:
    """Count the folders that wrap everything: a lone folder around the class folders is no class."""
    folders = [path.split("/")[:-1] for path in paths]
    depth = 0
    while all(len(parts) > depth + 1 for parts in folders) and len({parts[depth] for parts in folders}) == 1:
        if split_of(folders[0][depth]):
            break
        depth += 1
    return depth


def _has_splits(parts: list[tuple[str, ...]]) -> bool:
    """Tell whether the first folders are splits: all of them are called so, and classes lie below."""
    tops = {part[0] for part in parts if len(part) > 1}
    return bool(tops) and all(split_of(top) for top in tops) and any(len(part) > 2 for part in parts)


def _refuse_few(root: Path, classes: list[str], pictures: int) -> None:
    if not classes:
        raise DataError(
            f"{root} holds {count(pictures, 'picture')} but no labels. "
            f"Put the pictures into one folder a class: {root.name}/cat/1.jpg."
        )
    if len(classes) == 1:
        raise DataError(
            f"{root} holds one class only, {classes[0]!r}. Add a folder of pictures of something else."
        )


def _notes(walk: _Walk, others: int, stray: list[str]) -> tuple[str, ...]:
    notes = []
    if others:
        notes.append(f"{count(others, 'file that is no picture', 'files that are no pictures')} left aside.")
    if stray:
        notes.append(f"{count(len(stray), 'picture')} outside any class folder left aside: {some(stray)}.")
    if walk.closed:
        notes.append(f"{count(len(walk.closed), 'folder')} may not be read: {some(walk.closed)}.")
    if walk.loops:
        notes.append(
            f"{count(len(walk.loops), 'link')} leading back upwards not followed: {some(walk.loops)}."
        )
    return tuple(notes)


def _why(has_splits: bool, classes: list[str], entries: list[Entry]) -> str:
    shown = some(classes)
    if not has_splits:
        return f"class folders, because {count(len(classes), 'folder')} hold the pictures: {shown}."
    splits = [split for split in ("train", "val", "test") if any(entry.split == split for entry in entries)]
    return (
        f"class folders with a split of their own ({', '.join(splits)}), because the folders above the "
        f"{count(len(classes), 'class', 'classes')} ({shown}) are called so."
    )
