"""Shared types of all layouts: a tree of files, on disk or in archives, and its entries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, UndecidedError
from vitrail.core.text import printable
from vitrail.data import archives, own_outputs
from vitrail.data.labels import count, is_image, join_labels, natural, shorten, split_labels
from vitrail.data.open_image import read
from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.data.rasters.facts import RasterFacts
from vitrail.data.rasters.sources import JOIN, common, raster_files, short_name
from vitrail.data.table_files import is_table
from vitrail.data.truth import Truth
from vitrail.data.walk_files import head_of, hidden_note, is_hidden, is_image_at, walk

CLASS = Truth("class")

CLIPS = "clips"  # the name of the layout whose entries are clips
_COCO = (b'"images"', b'"annotations"', b'"categories"')

ALONE = "To learn from the images alone: --task pretrain."
"""The way out of a source without labels."""


class Entry(NamedTuple):
    """One image of a layout, not opened yet; `target` and `part` are those of a manifest row.

    `trouble` is the reason, as a predicate, why it cannot be used; empty if it can be opened.
    """

    id: str
    path: str
    target: str
    split: str = ""
    group: str = ""
    trouble: str = ""
    part: str = ""


class Way(NamedTuple):
    """One answer to a question: its meaning and its option."""

    text: str
    option: tuple[str, str]  # name and value, as ("labels", "notes.csv")


class Question(NamedTuple):
    """A contradiction between two readings of a source: the question and the possible answers."""

    text: str
    ways: tuple[Way, ...]

    def error(self, source: str) -> UndecidedError:
        """Return the error that asks the user for a decision."""
        return UndecidedError(f"{source}: {self.text}", self.ways)


@dataclass(frozen=True)
class Layout:
    """One reading of a source: `why` is the reason in one sentence, `notes` report what is not used.

    `truth` is the header of its targets; `refusal` the message if such truths need a named task; `plain` the reason, as
    a predicate, why its labels may not be classes; `question` an open decision for the user; `tables` the tables with
    its labels; `asked` the reading options; `truths` the files that are truths and not images; `sure` is True if no
    other reading of the folders can be a question; `raster` are the bands and the grid of rasters.
    """

    name: str
    root: Path
    why: str
    found: tuple[Entry, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    truth: Truth = CLASS
    refusal: str = ""
    plain: str = ""
    question: Question | None = None
    tables: tuple[str, ...] = ()
    asked: LayoutOptions = DEFAULTS
    truths: frozenset[str] = field(default=frozenset(), repr=False)
    sure: bool = False
    raster: RasterFacts | None = None

    @property
    def noun(self) -> str:
        """What an entry is called: an image, a window of a raster, or a clip."""
        return "window" if self.raster is not None else "clip" if self.name == CLIPS else "image"

    @property
    def option(self) -> tuple[str, str]:
        """The option and the value that select this reading."""
        return ("labels", self.tables[0]) if self.tables else ("layout", self.name)

    def entries(self) -> Iterator[Entry]:
        """Yield the images in natural order of their ids."""
        yield from sorted(self.found, key=lambda entry: natural(entry.id))

    @cached_property
    def explained(self) -> Mapping[str, str]:
        """Path of every image with a truth → the truth."""
        return {entry.path: entry.target for entry in self.found if entry.target and not entry.trouble}

    @cached_property
    def classes(self) -> list[str]:
        """The labels that occur, in natural order."""
        return sorted(
            {one for cell in set(self.explained.values()) for one in split_labels(cell)}, key=natural
        )


def truth_of(entries: Iterable[Entry]) -> Truth:
    """Return the header of a table's targets: `classes` if an image has several labels, else `class`."""
    several = any(len(split_labels(entry.target)) > 1 for entry in entries if not entry.trouble)
    return Truth("classes" if several else "class")


@dataclass(frozen=True)
class Tree:
    """All files of a source in natural order: name inside the source → path below `root`.

    `folders` are its folders, `table` is the table named as the source; `refused` contains files that must not be
    read, `notes` report what is not used; `options` are the reading options, `wanted` is the kind of truth of the named
    task; `stack` is the path of the rasters that the source names; `clips` are the videos and the folders of frames
    that are taken in place of images (`clip_files.as_clips`).
    """

    name: str
    root: Path
    files: Mapping[str, str] = field(repr=False)
    refused: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()
    table: str = ""
    folders: tuple[str, ...] = ()
    options: LayoutOptions = DEFAULTS
    wanted: str = ""
    stack: str = ""
    clips: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def look(cls, source: str | Path, options: LayoutOptions = DEFAULTS) -> Tree:
        """List a folder, an archive, the folder of a single file, or rasters.

        Raises:
            DataError: the source is missing, not permitted, or of an unknown kind.
        """
        if rasters := raster_files(source):
            root, files = common(rasters)
            return cls(short_name(source), root, files, options=options, stack=JOIN.join(files))
        path = expanded(source)
        if not path.exists():
            raise DataError(f"{source} does not exist. Give a folder of images, one folder a class.")
        if path.is_dir():
            return replace(_without_own(_folder(path)), options=options)
        if archives.is_archive(path.name):
            files, refused, hidden = _archive(path, path.name)
            notes = tuple(hidden_note(hidden))
            return replace(_without_own(cls(path.name, path.parent, files, refused, notes)), options=options)
        if path.name.lower().endswith(archives.CLOSED):
            raise DataError(
                f"{source} is packed in a way that is not read in place. Pack it as .zip or .tar."
            )
        if not (is_table(path.name) or path.suffix in {".npz", ".arrow", ".json", ".xml"}):
            raise DataError(
                f"{source} is a single file that holds no data set. Give a folder, zip, tar or table."
            )
        if path.suffix == ".json" and all(word in path.read_bytes() for word in _COCO):
            raise DataError(
                f"{source} holds annotations of COCO and no images. Put it into the folder of the images, and give "
                "that folder."
            )
        return cls(path.name, path.parent, {path.name: path.name}, table=path.name, options=options)

    @cached_property
    def pictures(self) -> list[str]:
        """The names of images, by their suffix or else by their first bytes; or those of clips."""
        return list(self.clips) or [name for name in self.files if self._shows(name)]

    @cached_property
    def shown(self) -> frozenset[str]:
        """The images as a set."""
        return frozenset(self.pictures)

    def _shows(self, name: str) -> bool:
        return is_image(name) or is_image_at(self.root, self.files[name])

    @property
    def noun(self) -> str:
        """What `pictures` are called: image, or clip."""
        return "clip" if self.clips else "image"

    def odd_notes(self) -> list[str]:
        """Return a note on images without the suffix of an image."""
        odd = [] if self.clips else [name for name in self.pictures if not is_image(name)]
        if not odd:
            return []
        return [f"{count(len(odd), 'file')} without the suffix of an image taken as one: {shorten(odd)}."]

    def other_notes(self, used: Iterable[str]) -> list[str]:
        """Return a note on files that are not images, without those in `used`."""
        gone = set(used)
        others = [name for name in self.files if name not in self.shown and name not in gone]
        nouns = f"file that is no {self.noun}", f"files that are no {self.noun}s"
        return [f"{count(len(others), *nouns)} left aside: {shorten(others)}."] if others else []

    def read(self, name: str) -> bytes:
        """Return the bytes of one file."""
        return read(self.root, self.files[name])

    def entry(self, name: str, target: str, split: str = "", group: str = "") -> Entry:
        """Return the entry of one file; its path is its id."""
        return Entry(self.files[name], self.files[name], target, split, group)

    def of_class(self, name: str, known: str, split: str = "") -> Entry:
        """Return the entry of one file that shows one class."""
        return self.entry(name, join_labels([known]), split)


def _without_own(tree: Tree) -> Tree:
    """Leave out files written by vitrail, with a note.

    Raises:
        DataError: the source is a run.
    """
    made = own_outputs.folders(tree.files)
    if "" in made:
        raise DataError(
            f"{tree.name} is {made['']}, no data set. Name a folder of images: vitrail check FOLDER"
        )
    inside = tuple(f"{folder}/" for folder in made)
    tables = {
        name: what
        for name in tree.files
        if not name.startswith(inside) and is_table(name) and (what := own_outputs.what_is(name, tree.read))
    }
    drawn = own_outputs.figures(
        (name for name in tree.files if not name.startswith(inside)),
        lambda name: head_of(tree.root, tree.files[name], own_outputs.HEAD),
    )
    gone = {name for name in tree.files if name in tables or name in drawn or name.startswith(inside)}
    notes = [f"{name} left aside: {what}, no labels of yours." for name, what in tables.items()]
    notes += [f"{folder} left aside: {what}, no images of yours." for folder, what in made.items()]
    notes += own_outputs.figure_note(drawn)
    files = {name: path for name, path in tree.files.items() if name not in gone}
    emptied = _above(gone) - _above(files)
    folders = tuple(one for one in tree.folders if one not in emptied)
    return replace(tree, files=MappingProxyType(files), notes=(*tree.notes, *notes), folders=folders)


def _above(names: Iterable[str]) -> set[str]:
    """Return all folders above some files."""
    return {name[: mark.start()] for name in names for mark in re.finditer("/", name)}


def _archive(file: Path, prefix: str) -> tuple[dict[str, str], tuple[Entry, ...], list[str]]:
    """Return the files of an archive, its refused members, and its hidden files."""
    found = archives.members(file)
    files = {m.name: f"{prefix}!{m.name}" for m in found if not m.trouble and not is_hidden(m.name)}
    refused = tuple(_refused(f"{prefix}!{m.name}", m.trouble) for m in found if m.trouble)
    return files, refused, list(dict.fromkeys(_hidden_part(m.name) for m in found if is_hidden(m.name)))


def _hidden_part(name: str) -> str:
    """Return a name up to its first hidden folder or file."""
    parts = name.split("/")
    until = next(i for i in range(len(parts)) if is_hidden("/".join(parts[: i + 1])))
    return "/".join(parts[: until + 1])


def _refused(name: str, trouble: str) -> Entry:
    return Entry(printable(name), printable(name), "", trouble=trouble)


def _folder(root: Path) -> Tree:
    found = walk(root)
    refused = [_refused(name, "is a folder that may not be opened") for name in found.closed]
    refused += [_refused(name, "has a name that is no UTF-8: rename it") for name in found.foreign]
    notes = found.notes()
    files = {name: name for name in found.files}
    packed = [name for name in found.files if archives.is_archive(name)]
    if packed and not any(is_image_at(root, name) for name in found.files):
        for name in packed:  # shards, or train.zip beside val.zip
            inner, bad, hidden = _archive(root / name, name)
            stem = name[
                : name.lower().rindex(next(s for s in archives.SUFFIXES[::-1] if name.lower().endswith(s)))
            ]
            del files[name]
            files.update((f"{stem}/{inside}", path) for inside, path in inner.items())
            refused += bad
            notes += hidden_note([f"{stem}/{one}" for one in hidden])
    return Tree(root.name, root, files, tuple(refused), tuple(notes), folders=tuple(found.folders))
