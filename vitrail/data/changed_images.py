"""Whether images are still those that a manifest names: by their content, which it holds as a hash.

Reading every image of a large set again takes minutes, so a file that was not touched since its content was last
looked at is taken as it was: neither its content nor its entry in the folder changed since, as the file system says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from vitrail.core.errors import DataError
from vitrail.data.decode import Decoded, decode
from vitrail.data.doctor import Progress, workers
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import Row
from vitrail.data.open_image import content_hash, cut_out, place, read

CLOCKS = 60.0
"""Seconds by which the clock of a file server may be behind ours."""

_CHUNK = 256


class Changes(NamedTuple):
    """The rows whose images are no longer those of the manifest: other content, or gone."""

    changed: tuple[Row, ...] = ()
    missing: tuple[Row, ...] = ()

    def ids(self) -> set[str]:
        """Return the ids of all of them."""
        return {row.id for row in (*self.changed, *self.missing)}

    def text(self, of: int) -> str:
        """Say in words how many of so many images they are, and which; "" where there are none."""
        parts = [
            f"{len(rows):,} {what} ({shorten(row.id for row in rows)})"
            for rows, what in ((self.changed, "changed"), (self.missing, "missing"))
            if rows
        ]
        many = len(self.changed) + len(self.missing)
        verb = "is" if many == 1 else "are"
        return (
            f"{many:,} of {count(of, 'image')} {verb} no longer what the run saw: {', '.join(parts)}"
            if many
            else ""
        )


def load_unchanged(root: Path, row: Row, channels: int = 3, *, raw: bool = False) -> Decoded:
    """Return the image of a row, decoded, as `source.load` does, but only where it is the one of the manifest.

    Raises:
        DataError: as `source.load`, or its content is another one.
    """
    data = read(root, row.path, row.part, raw=raw)
    if row.hash and content_hash(_as_hashed(root, row, data, raw), row.path, row.part) != row.hash:
        raise DataError(f"{row.path} is no longer the image that the run saw. Put it back.")
    return cut_out(decode(data, channels, row.path, raw), row.path, row.part)


def _as_hashed(root: Path, row: Row, data: bytes, raw: bool) -> bytes:
    """Return the bytes that a check hashes: of a slice of a volume those of its window."""
    return read(root, row.path, row.part) if raw else data


def find_changes(
    rows: Sequence[Row], root: Path, since: float | None = None, progress: Progress | None = None
) -> Changes:
    """Return which images are gone or have another content; `since` is when they were looked at last in this place.

    None stands for never: every file is read. Rows without a hash are only looked for.
    """
    touched = lru_cache(maxsize=None)(partial(_touched, since=since))

    def look(row: Row) -> str:
        try:
            where = place(root, row.path)
            if not touched(where.file):
                return "same"
            data = read(root, row.path, row.part)
        except (DataError, OSError):
            return "missing"
        return "same" if row.hash in {"", content_hash(data, row.path, row.part)} else "changed"

    states: list[str] = []
    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(rows), _CHUNK):
            states += pool.map(look, rows[start : start + _CHUNK])
            if progress is not None:
                progress(len(states), len(rows))
    return Changes(tuple(_in(rows, states, "changed")), tuple(_in(rows, states, "missing")))


def _in(rows: Iterable[Row], states: Iterable[str], wanted: str) -> Iterable[Row]:
    return (row for row, state in zip(rows, states, strict=True) if state == wanted)


def _touched(file: Path, since: float | None) -> bool:
    """Tell whether a file was written, renamed or put here after a time; OSError where it is gone."""
    found = file.stat()
    # Elsewhere than on POSIX systems st_ctime tells when a file was made, which renaming does not change.
    known = since is not None and os.name == "posix"
    return not known or max(found.st_mtime, found.st_ctime) >= (since or 0.0) - CLOCKS
