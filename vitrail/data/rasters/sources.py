"""Sources that are rasters: one file, or several whose bands lie on one another, written as one text with `|`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vitrail.core.environment import expanded
from vitrail.core.errors import DataError, UsageError

JOIN = "|"
"""Between the files of one source or path."""

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img")
"""Suffixes of files that a source may name one by one."""


def joined(first: str, more: Sequence[str]) -> str:
    """Return several files of rasters as one source; without `more`, the first word unchanged.

    Raises:
        UsageError: a word is no raster.
    """
    words = (first, *more)
    wrong = [word for word in words if not word.lower().endswith(SUFFIXES)]
    if more and wrong:
        raise UsageError(
            f"{wrong[0]} is no raster ({', '.join(SUFFIXES)}), and only rasters are named several at once: their bands "
            "are put on one another. Name one folder or file."
        )
    return JOIN.join(words)


def words_of(source: str | Path) -> list[str]:
    """Return a source as words of a command: several rasters, or itself; another name may contain `|`."""
    words = str(source).split(JOIN)
    return words if all(word.lower().endswith(SUFFIXES) for word in words) else [str(source)]


def raster_files(source: str | Path) -> tuple[Path, ...]:
    """Return the raster files that a source names; () if it names something else.

    Raises:
        DataError: a single raster has `|` in its name.
    """
    words = words_of(source)
    paths = tuple(expanded(word) for word in words)
    if len(paths) > 1:
        return paths
    if not words[0].lower().endswith(SUFFIXES) or not paths[0].is_file():
        return ()
    if JOIN in words[0]:
        raise DataError(f"{source} has {JOIN} in its name, which stands between several rasters. Rename it.")
    return paths


def common(files: Sequence[Path]) -> tuple[Path, dict[str, str]]:
    """Return the folder above some files, and name → path below it.

    Raises:
        DataError: a file is missing, or named twice.
    """
    for one in files:
        if not one.is_file():
            raise DataError(f"{one} does not exist. Name files that are there.")
    whole = [one.resolve() for one in files]
    if len(set(whole)) < len(whole):
        raise DataError(f"{files[0]} is named twice. Name every file once.")
    root = Path(os.path.commonpath([one.parent for one in whole]))
    return root, {name: name for name in (one.relative_to(root).as_posix() for one in whole)}


def found_again(stated: str, root: Path) -> str | None:
    """Return the several rasters of a source where they are stated, or else in `root`; None for other sources."""
    words = words_of(stated)
    if len(words) < 2:
        return None
    for places in ([expanded(word) for word in words], [root / Path(word).name for word in words]):
        if all(place.is_file() for place in places):
            return JOIN.join(map(str, places))
    return None


def short_name(source: str | Path) -> str:
    """Return the name of a source for folders: that of its file or folder; of rasters the stem of the first."""
    path = Path(words_of(source)[0]).resolve()
    return path.stem if raster_files(source) else path.name
