"""Find images that changed since a manifest was written, by the hash of their content.

Reading every image of a large set again takes minutes. A file is therefore read only if the file system reports a
change of its content or of its folder entry since the last check.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError
from vitrail.data.decode import Decoded, decode
from vitrail.data.doctor import Progress, workers
from vitrail.data.image_facts import look_windows
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import Row
from vitrail.data.open_image import content_hash, cut_out, files_of, is_clip, load, load_clip, read, row_hash
from vitrail.data.parts import is_raster

CLOCKS = 60.0
"""Largest assumed delay in seconds of a file server's clock."""

_CHUNK = 256


class Changes(NamedTuple):
    """The rows whose images have another content than in the manifest, or are missing."""

    changed: tuple[Row, ...] = ()
    missing: tuple[Row, ...] = ()

    def ids(self) -> set[str]:
        """Return the ids of all changed and missing images."""
        return {row.id for row in (*self.changed, *self.missing)}

    def text(self, of: int) -> str:
        """Return a sentence with their number, of `of` images, and their names; "" if there are none."""
        many = len(self.changed) + len(self.missing)
        if not many:
            return ""
        parts = [
            f"{len(rows):,} {what} ({shorten(row.id for row in rows)})"
            for rows, what in ((self.changed, "changed"), (self.missing, "missing"))
            if rows
        ]
        verb = "is" if many == 1 else "are"
        return f"{many:,} of {count(of, 'image')} {verb} no longer what the run saw: {', '.join(parts)}"


def load_unchanged(
    root: Path, row: Row, channels: int = 3, *, raw: bool = False, bands: Sequence[str] = ()
) -> Decoded:
    """Return the decoded image of a row, as `source.load` does, if its content is that of the manifest.

    Raises:
        DataError: as `source.load`, or the content has changed.
    """
    if is_clip(row.path, row.part):
        _check_clip(root, row)
        return load(root, row.path, channels, row.part)
    data = read(root, row.path, row.part, raw=raw)
    if row.hash and content_hash(_as_hashed(root, row, data, raw), row.path, row.part) != row.hash:
        raise _changed(row)
    if is_raster(row.part):
        return load(root, row.path, channels, row.part, raw=raw, bands=bands)
    return cut_out(decode(data, channels, row.path, raw, bands), row.path, row.part)


def load_unchanged_clip(root: Path, row: Row, count: int, channels: int = 3) -> NDArray[np.uint8]:
    """Return `count` frames of a row, (t, height, width, channels), if its content is that of the manifest.

    Raises:
        DataError: as `source.load_clip`, or the content has changed.
    """
    _check_clip(root, row)
    return load_clip(root, row.path, row.part, count, channels=channels).frames


def _check_clip(root: Path, row: Row) -> None:
    if row.hash and row_hash(root, row.path, row.part) != row.hash:
        raise _changed(row)


def _changed(row: Row) -> DataError:
    return DataError(f"{row.path} is no longer the image that the run saw. Put it back.")


def _as_hashed(root: Path, row: Row, data: bytes, raw: bool) -> bytes:
    """Return the bytes that a check hashes; for a slice of a volume, the bytes after its intensity window."""
    return read(root, row.path, row.part) if raw else data


def find_changes(
    rows: Sequence[Row], root: Path, since: float | None = None, progress: Progress | None = None
) -> Changes:
    """Return the images that are missing or have another content; `since` is the time of the last check here.

    None means never: every file is read. For rows without a hash only the existence of the file is checked.
    """
    touched = lru_cache(maxsize=None)(partial(_touched, since=since))

    def looked(row: Row) -> str:
        try:
            if not any(map(touched, files_of(root, row.path, row.part))):
                return "same"
            return "read"
        except (DataError, OSError):
            return "missing"

    def look(row: Row) -> str:
        if (state := looked(row)) != "read":
            return state
        try:
            found = row_hash(root, row.path, row.part)
        except DataError:
            return "missing"
        return "same" if row.hash in {"", found} else "changed"

    states: list[str] = []
    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            states += _of_windows(chunk, root, looked) if is_raster(chunk[0].part) else pool.map(look, chunk)
            if progress is not None:
                progress(len(states), len(rows))
    return Changes(tuple(_in(rows, states, "changed")), tuple(_in(rows, states, "missing")))


def _of_windows(rows: Sequence[Row], root: Path, looked: Callable[[Row], str]) -> list[str]:
    """Return the states of windows of rasters; those to be read are read together."""
    states = [looked(row) for row in rows]
    again = [i for i, state in enumerate(states) if state == "read"]
    facts = look_windows(root, [(rows[i].path, rows[i].part) for i in again])
    for i, one in zip(again, facts, strict=True):
        states[i] = "missing" if not one.hash else "same" if rows[i].hash in {"", one.hash} else "changed"
    return states


def _in(rows: Iterable[Row], states: Iterable[str], wanted: str) -> Iterable[Row]:
    return (row for row, state in zip(rows, states, strict=True) if state == wanted)


def _touched(file: Path, since: float | None) -> bool:
    """Return whether a file was written, renamed or moved here after `since`; raise OSError if it is missing."""
    status = file.stat()
    # On systems other than POSIX, st_ctime is the creation time, which does not change when a file is renamed.
    known = since is not None and os.name == "posix"
    return not known or max(status.st_mtime, status.st_ctime) >= (since or 0.0) - CLOCKS
