"""The index of a folder: which images it holds by content, and their vectors, which are computed once per content.

Files that have not changed since the last search are not read again. An image that was renamed or moved is found by its
content, so nothing is computed for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.cache import keep_json
from vitrail.core.environment import cache_dir
from vitrail.core.errors import DataError, VitrailError
from vitrail.data.doctor import look_all
from vitrail.data.image_facts import Memory
from vitrail.data.labels import count, shorten
from vitrail.data.layouts import Entry
from vitrail.data.manifest import Manifest, Row
from vitrail.data.truth import Truth
from vitrail.search.image_list import ImageList
from vitrail.training.feature_cache import Frozen

Progress = Callable[[str, int, int], None]
"""Called with what is done, how many are done and how many there are."""

FORMAT = 1
"""Version of the files that say what a folder held."""

Floats = NDArray[np.float32]


class Broken(NamedTuple):
    """An image that cannot be searched, and why."""

    id: str
    why: str


class Contents(NamedTuple):
    """The readable images of a source by content, those that are broken, and notes on what was left aside or moved."""

    root: Path
    rows: tuple[Row, ...]
    broken: tuple[Broken, ...]
    notes: tuple[str, ...]

    def manifest(self) -> Manifest:
        """Return the images as a manifest without truths."""
        return Manifest.of(self.rows, self.root, Truth("none"))


class Index(NamedTuple):
    """Images with one vector of length 1 each: `vectors` is (n, d) in float32, in the order of `rows`."""

    root: Path
    rows: tuple[Row, ...]
    vectors: Floats
    broken: tuple[Broken, ...]
    notes: tuple[str, ...]


def contents_of(images: ImageList, progress: Progress | None = None) -> Contents:
    """Return the images of a source by content; only those that are new or have changed are read.

    Raises:
        DataError: none of them can be read.
    """
    path = _record_of(images.source)
    known = _read(path)
    marks = _Marks(images.root)
    entries = list(images.entries)
    hashes = {_key(one): _unchanged(known.get(_key(one)), marks.of(one.path)) for one in entries}
    new = [one for one in entries if not hashes[_key(one)]]
    memory = Memory(cache_dir() / "check.sqlite")
    try:
        facts = look_all(new, images.root, memory, _told(progress, "reading images"))
        errors = {}
        for one, seen in zip(new, facts, strict=True):
            hashes[_key(one)], errors[_key(one)] = seen.hash, seen.error
    finally:
        memory.close()
    broken = tuple(Broken(one.id, errors[_key(one)]) for one in new if errors[_key(one)])
    good = [one for one in entries if not errors.get(_key(one))]
    if not good:
        raise DataError(
            f"None of {count(len(entries), 'image')} can be read, the first because: {broken[0].why}"
        )
    rows = tuple(Row(one.id, one.path, one.part, hash=hashes[_key(one)]) for one in good)
    there = {_key(one): hashes[_key(one)] for one in entries}
    notes = (*images.notes, *_changes(known, there))
    kept = {_key(one): (hashes[_key(one)], marks.of(one.path)) for one in good}
    if kept != known:
        _write(path, kept)
    return Contents(images.root, rows, broken, notes)


def index_of(contents: Contents, frozen: Frozen, progress: Progress | None = None) -> Index:
    """Return the vectors of images; only contents that this network has not seen are computed.

    Images that the network cannot take are left out and named as broken.

    Raises:
        DataError: it can take none of them.
    """
    manifest = contents.manifest()
    told = _told(progress, "vectors")
    rows, broken = contents.rows, list(contents.broken)
    plan = frozen.backend(manifest, rows)
    try:
        vectors = frozen.vectors(manifest, rows, told, plan)
    except VitrailError:
        bad = _untakeable(frozen, manifest, rows)
        broken += bad
        gone = {one.id for one in bad}
        rows = tuple(row for row in rows if row.id not in gone)
        if not rows:
            raise DataError(f"None of the images can be used by this network: {broken[0].why}") from None
        vectors = frozen.vectors(manifest, rows, told, plan)
    return Index(contents.root, rows, unit(vectors), tuple(broken), contents.notes)


def unit(vectors: NDArray[np.floating]) -> Floats:
    """Return vectors of length 1 in float32: (n, d) -> (n, d); a vector of zeros is returned as it is."""
    plain = vectors.astype(np.float32, copy=False)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    scaled: Floats = plain / np.maximum(lengths, np.float32(1e-12))
    return scaled


def _untakeable(frozen: Frozen, manifest: Manifest, rows: Sequence[Row]) -> list[Broken]:
    """Return the rows that fail alone, found by halves; what can be computed is cached on the way."""
    try:
        frozen.vectors(manifest, rows)
        return []
    except VitrailError as error:
        if len(rows) == 1:
            return [Broken(rows[0].id, str(error))]
    middle = len(rows) // 2
    return [*_untakeable(frozen, manifest, rows[:middle]), *_untakeable(frozen, manifest, rows[middle:])]


def _told(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


_Key = tuple[str, str]
_Known = dict[_Key, tuple[str, tuple[int, ...]]]
"""Path and part of an image → the hash of its content, and what the file system said of its file."""


def _key(one: Entry) -> _Key:
    return one.path, one.part


class _Marks:
    """What the file system says of files: size and times of change. It changes whenever the content may have."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, tuple[int, ...]] = {}

    def of(self, path: str) -> tuple[int, ...]:
        """Return the mark of the file in which an image lies; () if it cannot be told, so that it is read again."""
        outer = path.partition("!")[0]
        if outer not in self._known:
            try:
                status = os.stat(self.root / outer)
                self._known[outer] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            except OSError:
                self._known[outer] = ()
        return self._known[outer]


def _unchanged(known: tuple[str, tuple[int, ...]] | None, mark: tuple[int, ...]) -> str:
    """Return the known hash of a file that has not changed, or ""."""
    return known[0] if known is not None and mark and known[1] == mark else ""


def _changes(known: _Known, now: dict[_Key, str]) -> list[str]:
    """Return notes on images that were renamed or moved, or have vanished, since the last search."""
    gone = [key for key in known if key not in now]
    fresh = {content: key for key, content in now.items() if key not in known}
    moved = [(key, fresh[known[key][0]]) for key in gone if known[key][0] in fresh]
    away = {key for key, _ in moved}
    lost = [key[0] for key in gone if key not in away]
    notes = []
    if moved:
        were = "was" if len(moved) == 1 else "were"
        names = shorten(f"{old[0]} is now {new[0]}" for old, new in moved)
        notes.append(
            f"{count(len(moved), 'image')} {were} renamed or moved, found again by content: {names}."
        )
    if lost:
        have = "has" if len(lost) == 1 else "have"
        notes.append(
            f"{count(len(lost), 'image')} of the last search {have} vanished and are left out: {shorten(lost)}."
            if len(lost) > 1
            else f"{count(1, 'image')} of the last search {have} vanished and is left out: {lost[0]}."
        )
    return notes


def _record_of(source: str) -> Path:
    name = blake2b(os.fsencode(source), digest_size=16).hexdigest()
    return cache_dir() / "search" / f"{name}.json"


def _read(path: Path) -> _Known:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            return {}
        return {(name, part): (content, tuple(mark)) for name, part, content, mark in found["images"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # missing or broken: every image is read again


def _write(path: Path, known: _Known) -> None:
    rows = [[name, part, content, list(mark)] for (name, part), (content, mark) in known.items()]
    keep_json(path, {"format": FORMAT, "images": rows})
